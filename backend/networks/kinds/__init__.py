"""The kinds of adapters by their own names; what a network chooses among."""
