"""What a release is made of and checked with: locks, licences, advisories, wheels, lists of parts, signatures."""
