"""The programs against the lab: the same code that provisions production, applied to the emulated clouds."""
