"""Would WAL-G take this? Its acceptance rules, written down a second time and independently of our writer."""
