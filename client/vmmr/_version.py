"""The version of vmmr: of the SDK, and of the services, which are released together with it."""

__version__ = "0.1.0"
