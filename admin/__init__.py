"""The operator's tools: publishing films and the demo."""
