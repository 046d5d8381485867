package oidc

import "flag"

var codes = flag.Int("codes", 5, "how many codes are each sent to two processes many times")
