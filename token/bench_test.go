package token_test

import (
	"testing"

	"usher.example/token"
)

func BenchmarkIssue(b *testing.B) {
	for _, algorithm := range algorithms {
		b.Run(string(algorithm), func(b *testing.B) {
			p := setup(b, algorithm)
			b.ReportAllocs()
			for b.Loop() {
				issue(b, p)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range algorithms {
		for name, remember := range map[string]int{"hit": 1, "miss": -1} {
			b.Run(string(algorithm)+"/"+name, func(b *testing.B) {
				p := setup(b, algorithm, func(c *token.VerifierConfig) { c.Remember = remember })
				raw := issue(b, p)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := p.verifier.Verify(raw); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
