"""The residents' page of provision records (情報提供等の記録): one-time login, page, proofs."""
