"""The nightly fill, as far as it is there: demand, the catalogue as a table, and plans as signed orders in a bucket."""
