"""Is the process up, and can it do its work?"""
