"""中間インターフェース: inquiry, provision, ID conversion, reference database, holds, provision records."""
