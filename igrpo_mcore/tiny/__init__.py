"""The tiny checkpoint: a generated task, a tokenizer, two small model shapes and warm-up demonstrations."""
