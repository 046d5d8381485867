package password

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func policy(t testing.TB, c PolicyConfig) Policy {
	t.Helper()
	p, err := NewPolicy(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reasons for which a policy refuses a password; none if it doesn't.
func reasons(t testing.TB, p Policy, password Password, s Subject) []Reason {
	t.Helper()
	err := p.Check(password, s)
	if err == nil {
		return nil
	}
	var refused *RefusedError
	if !errors.As(err, &refused) || !errors.Is(err, ErrRefused) || len(refused.Reasons) == 0 {
		t.Fatalf("Check = %#v, want a RefusedError with reasons", err)
	}
	return refused.Reasons
}

var ada = Subject{Email: "ada.lovelace+news@analytical-engines.example", Name: "Ada King, Countess of Lovelace"}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		password                  Password
		lenient, default_, strict []Reason
	}{
		{"short", []Reason{TooShort}, []Reason{TooShort, Common}, []Reason{TooShort, Common, FewClasses}},
		{"password", nil, []Reason{Common}, []Reason{TooShort, Common, FewClasses}},
		{"12345678", nil, []Reason{Common, Pattern}, []Reason{TooShort, Common, Pattern, FewClasses}},
		{"aaaaaaaaaaaaaaaa", nil, []Reason{Pattern}, []Reason{Pattern, FewClasses}},
		{"Lovelace1815", nil, []Reason{ContainsEmail, ContainsName}, []Reason{ContainsEmail, ContainsName}},
		{"Usher 7 usher", nil, []Reason{ContainsWord}, []Reason{ContainsWord}},
		{"gubernatorial", nil, nil, []Reason{FewClasses}},
		{"a sentence of six words it is", nil, nil, []Reason{FewClasses}},
		{"Gubernatorial 7", nil, nil, nil},
		{"รหัสผ่านยาวมากๆ", nil, nil, []Reason{FewClasses}},
		{"a\x00", []Reason{ContainsNUL, TooShort}, []Reason{ContainsNUL, TooShort}, []Reason{ContainsNUL, TooShort, FewClasses}},
	} {
		for kind, want := range map[string][]Reason{"lenient": test.lenient, "default": test.default_, "strict": test.strict} {
			if diff := cmp.Diff(want, reasons(t, policy(t, PolicyConfig{Type: kind}), test.password, ada)); diff != "" {
				t.Errorf("%s: Check(%q) (-want +got):\n%s", kind, string(test.password), diff)
			}
		}
		if diff := cmp.Diff(test.default_, reasons(t, Policy{}, test.password, ada)); diff != "" {
			t.Errorf("zero Policy: Check(%q) (-want +got):\n%s", string(test.password), diff)
		}
	}
}

func TestPolicyCountsCharacters(t *testing.T) {
	t.Parallel()
	lenient := policy(t, PolicyConfig{Type: "lenient"})
	for password, want := range map[Password]bool{
		"":                             false,
		"1234567":                      false,
		"12345678":                     true,
		"пароль":                       false,
		"парольпа":                     true,
		"🐴🔋📎🦄🐴🔋📎":                      false,
		"🐴🔋📎🦄🐴🔋📎🦄":                     true,
		"e\u0301e\u0301e\u0301e\u0301": false, // four letters typed as eight code points
		"\ufdfa":                       false, // one ligature that stands for eighteen letters
	} {
		got := reasons(t, lenient, password, Subject{})
		if want != (got == nil) || !want && !slices.Equal(got, []Reason{TooShort}) {
			t.Errorf("Check(%q) = %v, want accepted %v", string(password), got, want)
		}
	}
	var refused *RefusedError
	err := policy(t, PolicyConfig{MinLength: 15}).Check("fourteen chars", Subject{})
	if !errors.As(err, &refused) || refused.MinLength != 15 || !strings.Contains(err.Error(), "shorter than 15 characters") {
		t.Errorf("Check with MinLength 15 = %v", err)
	}
}

func TestCommonPasswords(t *testing.T) {
	t.Parallel()
	for _, password := range []Password{
		"password", "PASSWORD", "Password1", "P@ssw0rd", "iloveyou", "1q2w3e4r5t", "qwertzuiop",
		"\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", // full width
		"dragon2024!", "Password1234!", "!password!", "1password", "123monkey", "john1985", "abc123!!", "password🐴🔋",
		"dragondragon", "dragondragondragon",
	} {
		if got := reasons(t, Policy{}, password, Subject{}); !slices.Contains(got, Common) {
			t.Errorf("Check(%q) = %v, want %v", string(password), got, Common)
		}
	}
	for _, password := range []Password{
		"dragon and mice", "dragonmastodon", // words that go on are no decoration
		"tractor830714", "1492tractor25", // six characters added are worth something
		"29384756", "abc98341", // what is left is no word
		"passwörd", // another word
		"correct horse battery staple",
	} {
		if got := reasons(t, Policy{}, password, Subject{}); got != nil {
			t.Errorf("Check(%q) = %v, want it accepted", string(password), got)
		}
	}
}

func TestListOfCommonPasswords(t *testing.T) {
	t.Parallel()
	words := strings.SplitAfter(commonList, "\n")
	if last := words[len(words)-1]; last != "" {
		t.Fatalf("the list ends with %q, want a line break", last)
	}
	words = words[:len(words)-1]
	if len(words) != 38460 || !slices.IsSorted(words) {
		t.Errorf("%d words, sorted %v, want 38460 sorted", len(words), slices.IsSorted(words))
	}
	long := 0
	for i, word := range words {
		word = strings.TrimSuffix(word, "\n")
		if utf8.RuneCountInString(word) >= DefaultMinLength {
			long++
		}
		if fold(word) != word || i > 0 && words[i-1] == words[i] {
			t.Errorf("%q is not folded, or twice there", word)
		}
		// Near misses, below and above it, are found only if they are there themselves.
		for other, want := range map[string]bool{word: true, word + "\x00": false, word[:len(word)-1] + "\x7f": false} {
			if listed(other) != want {
				t.Errorf("listed(%q) = %v, want %v", other, !want, want)
			}
		}
	}
	if long != 15644 {
		t.Errorf("%d words of %d characters or more, want 15644", long, DefaultMinLength)
	}
	for _, text := range []string{"", "\n", "\x00", "~~~~~~~~", "password\n", "\npassword"} {
		if listed(text) {
			t.Errorf("listed(%q) = true, want false", text)
		}
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, password := range []Password{
		"aaaaaaaa", "zzzzzzzzzzzz!", "12345678", "87654321", "abcdefgh", "hgfedcba", "ABCdefGHI", "абвгдежз", "1234567890",
		"abcd1234", "aaabbbccc", "abcabcabc", "xyxyxyxy", "x1zx1zx1z", "🐴🐴🐴🐴🐴🐴🐴🐴", "--------", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	} {
		if got := reasons(t, Policy{}, password, Subject{}); !slices.Contains(got, Pattern) {
			t.Errorf("Check(%q) = %v, want %v", string(password), got, Pattern)
		}
	}
	for _, password := range []Password{
		"abcd 1234 xy", "aabbccddeeff", "k4jqk4jq", "deftly stupid", "13579246", "the year 2345",
	} {
		if got := reasons(t, Policy{}, password, Subject{}); slices.Contains(got, Pattern) {
			t.Errorf("Check(%q) = %v, want no %v", string(password), got, Pattern)
		}
	}
	if got := reasons(t, policy(t, PolicyConfig{MinLength: 3}), "xkq", Subject{}); got != nil {
		t.Errorf("Check of three characters where that is enough = %v, want it accepted", got)
	}
}

func TestWhatIsNoSecret(t *testing.T) {
	t.Parallel()
	p := policy(t, PolicyConfig{Words: []string{"Société Générale", "R2D2"}})
	anna := Subject{Email: "Anna.Li@Mail.Example.org", Name: "Ánna-Lena Μάριος O'Brien"}
	for _, test := range []struct {
		password Password
		subject  Subject
		want     []Reason
	}{
		// The address, in whole and in parts.
		{"anna.li@mail.example.org", anna, []Reason{ContainsEmail}},
		{"ANNA.LI@mail.example.org1", anna, []Reason{ContainsEmail}},
		{"annali2024", anna, []Reason{ContainsEmail}},
		{"anna.li1234", anna, []Reason{ContainsEmail}},
		{"Example99!", anna, []Reason{ContainsEmail}},
		{"mailanna77", anna, []Reason{ContainsEmail}},
		{"xyexamplepq", anna, []Reason{ContainsEmail}},
		{"lovelace77", ada, []Reason{ContainsEmail, ContainsName}},
		{"analyticalengines", ada, []Reason{ContainsEmail}},
		{"john85x!", Subject{Email: "john1985@example.org"}, []Reason{ContainsEmail}},
		// The name.
		{"o'brien5", anna, []Reason{ContainsName}},
		{"Obrien75", anna, []Reason{Common, ContainsName}},
		{"μάριοσ85", anna, []Reason{ContainsName}},
		{"countess-king", ada, []Reason{ContainsName}},
		// Words of the service.
		{"usher!?!", Subject{}, []Reason{Common, ContainsWord}},
		{"ushxusher", Subject{}, []Reason{ContainsWord}},
		{"générale24", Subject{}, []Reason{ContainsWord}},
		{"SociétéGénérale", Subject{}, []Reason{ContainsWord}},
		{"r2d2r2d2x", Subject{}, []Reason{ContainsWord}},
		// Several at once.
		{"usher-anna", anna, []Reason{ContainsEmail, ContainsWord}},
		// A phrase that mentions them, and is long without them.
		{"anna likes blue whales", anna, nil},
		{"the fall of the house of usher", anna, nil},
		{"usher-mastodon-", Subject{}, nil},
		{"lovelacexq7-tr4k", ada, nil},
		// What is left is no better.
		{"usher-tractor", Subject{}, []Reason{Common}},
		{"annapassword", anna, []Reason{Common}},
		{"passANNAword", anna, []Reason{Common}},
		{"anna12345678", anna, []Reason{Common, Pattern}},
		{"anna!!!!!!!!", anna, []Reason{Pattern}},
		// Short words are found by chance.
		{"la linea rossa", Subject{Email: "li@la.de", Name: "Li La"}, nil},
		// Of nobody nothing is known.
		{"annabella77x", Subject{}, nil},
		{"annabella77x", Subject{Email: "@", Name: " - "}, nil},
	} {
		if diff := cmp.Diff(test.want, reasons(t, p, test.password, test.subject)); diff != "" {
			t.Errorf("Check(%q, %+v) (-want +got):\n%s", string(test.password), test.subject, diff)
		}
	}
}

func TestNewPolicyRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]PolicyConfig{
		"Type": {Type: "Strict"}, "MinLength": {MinLength: -1}, "History": {History: -1}, "History ": {History: MaxHistory + 1},
		"Words": {Words: []string{"acme", "abc"}}, "Words ": {Words: []string{""}},
	} {
		if _, err := NewPolicy(c); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("NewPolicy(%+v) = %v, want an error about %s", c, err, name)
		}
	}
}

func TestWhatIsSetIsALeastForTheStrictPolicy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config          PolicyConfig
		length, history int
	}{
		{PolicyConfig{}, DefaultMinLength, 0},
		{PolicyConfig{MinLength: 4, History: 3}, 4, 3},
		{PolicyConfig{Type: "lenient", MinLength: 20, History: 24}, 20, 24},
		{PolicyConfig{Type: "strict", MinLength: 8, History: 2}, StrictMinLength, StrictHistory},
		{PolicyConfig{Type: "strict", MinLength: 16, History: 10}, 16, 10},
	} {
		p := policy(t, test.config)
		if p.MinLength() != test.length || p.History() != test.history {
			t.Errorf("%+v: MinLength, History = %d, %d, want %d, %d", test.config, p.MinLength(), p.History(), test.length, test.history)
		}
	}
}

func TestAdviceIsGivenForEveryReason(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("reason.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(source)) {
		_, rest, found := strings.Cut(line, " Reason = \"")
		if !found {
			continue
		}
		n++
		reason := Reason(strings.TrimSuffix(rest, "\"\n"))
		if advice := (&RefusedError{Reasons: []Reason{reason}}).Advice(); !strings.HasPrefix(advice, "it ") || !strings.Contains(advice, ": ") {
			t.Errorf("advice for %s = %q, want what is wrong with it and what to do", reason, advice)
		}
	}
	if n != 11 {
		t.Errorf("%d reasons, want 11", n)
	}
	err = &RefusedError{Reasons: []Reason{TooShort, Common}, MinLength: 8}
	const want = "password: refused: it is shorter than 8 characters: make it longer, several words are good; " +
		"it is one of the most used passwords, or nearly: choose one that others would not think of"
	if err.Error() != want {
		t.Errorf("Error = %q, want %q", err.Error(), want)
	}
}

// The requirements of the OWASP Application Security Verification Standard 5.0
// (V6.2, password security) that this package answers for.

func TestASVS_6_2_1_AtLeastEightCharacters(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"lenient", "default", "strict"} {
		if got := reasons(t, policy(t, PolicyConfig{Type: kind}), "Kx7-qPm", Subject{}); !slices.Equal(got, []Reason{TooShort}) {
			t.Errorf("%s: Check of 7 characters = %v, want %v", kind, got, TooShort)
		}
	}
	for _, kind := range []string{"lenient", "default"} {
		if got := reasons(t, policy(t, PolicyConfig{Type: kind}), "Kx7-qPmz", Subject{}); got != nil {
			t.Errorf("%s: Check of 8 characters = %v, want it accepted", kind, got)
		}
	}
}

func TestASVS_6_2_4_MostUsedPasswords(t *testing.T) {
	t.Parallel()
	n := 0
	for line := range strings.Lines(commonList) {
		word := strings.TrimSuffix(line, "\n")
		if utf8.RuneCountInString(word) < DefaultMinLength {
			continue
		}
		n++
		if got := reasons(t, Policy{}, Password(word), Subject{}); !slices.Contains(got, Common) {
			t.Fatalf("Check(%q) = %v, want %v", word, got, Common)
		}
		if got := reasons(t, Policy{}, Password(strings.ToUpper(word)), Subject{}); !slices.Contains(got, Common) {
			t.Fatalf("Check(%q) = %v, want %v", strings.ToUpper(word), got, Common)
		}
	}
	if n < 3000 {
		t.Errorf("%d listed passwords match the policy, want 3000 or more", n)
	}
}

func TestASVS_6_2_5_AnyComposition(t *testing.T) {
	t.Parallel()
	for _, password := range []Password{"qjzmwvkx", "QJZMWVKX", "59274068", "#)~(%\"'$", "        \t...?!", "รหัสผ่านยาว", "🐴🔋📎🦄🍋🧦🎻🛶"} {
		if got := reasons(t, Policy{}, password, Subject{}); got != nil {
			t.Errorf("Check(%q) = %v, want it accepted", string(password), got)
		}
	}
}

func TestASVS_6_2_8_VerifiedExactlyAsReceived(t *testing.T) {
	t.Parallel()
	long := Password(strings.Repeat("x1Y! ", MaxBytes/5))
	for _, password := range []Password{" Correct Horse ", long} {
		h := hashed(t, password)
		if !verify(t, h, password) {
			t.Errorf("Verify of %d bytes = false, want true", len(password))
		}
		s := string(password)
		for change, other := range map[string]string{
			"lower case": strings.ToLower(s), "upper case": strings.ToUpper(s), "trimmed": strings.TrimSpace(s),
			"last byte less": s[:len(s)-1], "one more": s[:len(s)-1] + "  ", "72 bytes": s[:min(len(s)-1, 72)], "64 bytes": s[:min(len(s)-1, 64)],
		} {
			if other != s && len(other) <= MaxBytes && verify(t, h, Password(other)) {
				t.Errorf("Verify(%s) = true, want false", change)
			}
		}
	}
}

func TestASVS_6_2_9_SixtyFourCharactersAndMore(t *testing.T) {
	t.Parallel()
	for name, phrase := range passphrases {
		for _, kind := range []string{"lenient", "default"} {
			if got := reasons(t, policy(t, PolicyConfig{Type: kind}), phrase, Subject{}); got != nil {
				t.Errorf("%s: %s: Check of 64 characters = %v, want it accepted", kind, name, got)
			}
		}
	}
	for _, n := range []int{64, 128, 256} { // four bytes a character are the most there are
		phrase := Password(strings.Repeat("𝄞🐴Q7", n/4))
		if got := reasons(t, policy(t, PolicyConfig{Type: "strict"}), phrase, Subject{}); got != nil {
			t.Errorf("strict: Check of %d characters = %v, want it accepted", n, got)
		}
	}
}

func TestASVS_6_2_11_ContextSpecificWords(t *testing.T) {
	t.Parallel()
	p := policy(t, PolicyConfig{Words: []string{"Initech"}})
	for password, want := range map[Password]Reason{
		"initech-25": ContainsWord, "Usher2025": ContainsWord, "!Lovelace!": ContainsName, "analytical1": ContainsEmail,
	} {
		if got := reasons(t, p, password, ada); !slices.Contains(got, want) {
			t.Errorf("Check(%q) = %v, want %v", string(password), got, want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("correct horse battery staple", "ada@example.org", "Ada Lovelace", "acme")
	f.Add("passADAMword", "adam@adamadam.org", "adamad", "amad")
	f.Add("aaaaaaaaaaaaaaaa", "aaaaa@aaaaaaa", "aaaa", "aaaaaaaa")
	f.Add("\ufdfa\xff\x00", "@", "\ufdfa\xff", "\u0130\u0130\u0130\u0130")
	f.Fuzz(func(t *testing.T, text, email, name, word string) {
		subject := Subject{Email: email, Name: name}
		var words []string
		if _, err := NewPolicy(PolicyConfig{Words: []string{word}}); err == nil {
			words = []string{word}
		}
		var before []Reason
		for _, kind := range []string{"lenient", "default", "strict"} {
			got := reasons(t, policy(t, PolicyConfig{Type: kind, Words: words}), Password(text), subject)
			for _, reason := range before {
				if !slices.Contains(got, reason) {
					t.Errorf("%s doesn't refuse %q for %s, as a laxer policy does", kind, text, reason)
				}
			}
			if !slices.Equal(got, slices.Compact(slices.Clone(got))) {
				t.Errorf("%s: reasons %v, want each once", kind, got)
			}
			before = got
		}
		// What a person is called can be no reason if nobody knows the person.
		for _, reason := range reasons(t, policy(t, PolicyConfig{Words: words}), Password(text), Subject{}) {
			if reason == ContainsEmail || reason == ContainsName {
				t.Errorf("refused for %s of nobody", reason)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	for name, password := range map[string]Password{
		"phrase": "correct horse battery staple", "common": "password", "decorated": "!!1dragon24", "longest": Password(strings.Repeat("x1Y ", MaxBytes/4)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = Policy{}.Check(password, ada)
			}
		})
	}
}
