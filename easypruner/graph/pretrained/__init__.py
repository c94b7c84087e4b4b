"""Networks with a config of their own, as Hugging Face's: the config follows a cut, or says no."""
