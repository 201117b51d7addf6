"""Example plugins for rauta. Nothing is imported here: rauta imports the module of the plugin that a file names."""
