"""The agent of an appliance: picks up its order and has the local oca bring, compare, pledge and give up."""
