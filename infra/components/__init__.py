"""ComponentResources that the programs are made of: one file a concern, arguments are frozen dataclasses."""
