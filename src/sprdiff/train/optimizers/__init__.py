"""The optimisers: AdamW, SOAP and Muon."""
