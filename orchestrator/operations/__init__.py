"""The use cases. The command line, the API and the schedules call these and nothing below."""
