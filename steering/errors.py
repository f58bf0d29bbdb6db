"""What can go wrong, and whose fault it is."""


class SteeringError(Exception):
    """Any failure this service knows by name. Its text is a sentence for the operator."""


class SettingsError(SteeringError):
    """The settings file can't be used."""


class InventoryError(SteeringError):
    """A change that the inventory refuses: what was wrong, and what is allowed."""


class Crowded(SteeringError):
    """Appliances would go whose viewers the rest of their site can't carry."""


class RegistryError(SteeringError):
    """The registry could not read or keep something; what was decided before stands."""


class Unrecognised(SteeringError):
    """A message that does not come from whom it names, or is not what it should be."""
