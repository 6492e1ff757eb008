"""What an unpatched Wireshark shows for this protocol's bytes, and which bytes made it.

`reader` follows one direction, `words` sums its rows up; `quoted` finds the row that a user has copied, and
`old` knows the texts of earlier Wireshark versions. Only ``explain`` needs the last two, so nothing is
imported here.
"""
