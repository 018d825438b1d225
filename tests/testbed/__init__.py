"""A test bed on one machine: engine, images, registry and real hosts with systemd and SSH."""
