"""How the balancer holds a model: from logits back to the features and modules behind them."""
