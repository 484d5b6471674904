"""The stored format: names, documents, compression, encryption, tar; WAL-G's layout with ours on top."""
