"""Turns a general vision-language model into an industrial inspector that explains itself."""
