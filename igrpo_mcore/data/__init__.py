"""Problem sets, their order, and the templates that turn a problem into token ids."""
