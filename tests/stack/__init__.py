"""What tests of a deployed stack share: its host, its API, plays against it, and the slots of its backend."""
