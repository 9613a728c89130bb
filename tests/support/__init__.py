"""What the tests share: small models, data, and slow twins of what is tested."""
