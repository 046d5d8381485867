package look

import (
	"strings"
	"testing"

	"usher.example/words/wordstest"
)

func TestWords(t *testing.T) {
	t.Parallel()
	c, err := loadWords()
	if err != nil {
		t.Fatal(err)
	}
	wordstest.Complete(t, c)
}

func TestPlural(t *testing.T) {
	t.Parallel()
	l := newLook(t, Config{})
	for _, test := range []struct {
		language string
		n        int
		want     string
	}{
		{"en", 1, "Try again in 1 second."},
		{"en", 1200, "Try again in 1,200 seconds."},
		{"de", 1, "in 1 Sekunde noch"},
		{"de", 1200, "in 1.200 Sekunden noch"},
		{"fr", 0, "dans 0 seconde."},
		{"fr", 2, "dans 2 secondes."},
		{"es", 1, "de 1 segundo."},
		{"ja", 1, "1 秒後"},
		{"ar", 2, "ثانيتين (٢)"},
		{"ar", 3, "٣ ثوانٍ"},
		{"ar", 11, "١١ ثانية"},
	} {
		if got := l.Choose(test.language).Failed.TooOften.For(test.n); !strings.Contains(got, test.want) {
			t.Errorf("%s, %d: %q, want %q in it", test.language, test.n, got, test.want)
		}
	}
}
