"""The policy pack that keeps zones independent."""
