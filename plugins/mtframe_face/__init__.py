"""Face recognition: identities in LFW's layout, an embedding head, margin losses, the LFW protocol."""
