"""Programs beside the application: a model for trying things out, and what benchmarks compare with."""
