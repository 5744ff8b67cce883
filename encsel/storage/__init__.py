"""Files and what identifies them: whole-or-nothing writes, cache, JSON documents, signatures, pseudonyms."""
