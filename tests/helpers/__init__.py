"""What tests share: networks, contexts, configs, oracles."""
