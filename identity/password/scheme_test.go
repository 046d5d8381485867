package password

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"golang.org/x/crypto/bcrypt"
)

// passphrases of 64 characters in several scripts; most are far beyond 72 bytes.
var passphrases = map[string]Password{
	"latin":    Password(strings.Repeat("correct horse ba", 4)),
	"thai":     Password(strings.Repeat("รหัสผ่านยาวมากๆ ", 4)),
	"emoji":    Password(strings.Repeat("🐴🔋📎🦄", 16)),
	"han":      Password(strings.Repeat("正確馬電池訂書釘", 8)),
	"cyrillic": Password(strings.Repeat("верныйконьстепле", 4)),
	"arabic":   Password(strings.Repeat("حصانصحيحبطارية..", 4)),
	"hangul":   Password(strings.Repeat("올바른말배터리쇠", 8)),
	"flags":    Password(strings.Repeat("🇺🇦🇹🇭🇯🇵🇧🇷", 8)),
}

func hashed(t testing.TB, p Password) Hash {
	t.Helper()
	h, err := New(p, MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func verify(t testing.TB, h Hash, p Password) bool {
	t.Helper()
	ok, err := Verify(h, p)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestPassphrasesOfEveryScriptCountWhole(t *testing.T) {
	t.Parallel()
	for name, phrase := range passphrases {
		if n := utf8.RuneCountInString(string(phrase)); n != 64 {
			t.Fatalf("%s: %d characters, want 64", name, n)
		}
		if err := policy(t, PolicyConfig{MinLength: 64}).Check(phrase, Subject{}); err != nil {
			t.Errorf("%s: Check = %v, want nil", name, err)
		}
		h := hashed(t, phrase)
		if !verify(t, h, phrase) {
			t.Errorf("%s: Verify = false, want true", name)
		}
		_, size := utf8.DecodeLastRuneInString(string(phrase))
		for change, other := range map[string]Password{"last character less": phrase[:len(phrase)-size], "one more": phrase + "x"} {
			if verify(t, h, other) {
				t.Errorf("%s: Verify(%s) = true, want false", name, change)
			}
		}
	}
}

func TestBytesBeyondBcryptsLimitCount(t *testing.T) {
	t.Parallel()
	for _, n := range []int{71, 72, 73, 200, MaxBytes - 1} {
		common := strings.Repeat("a", n)
		h := hashed(t, Password(common+"1"))
		if verify(t, h, Password(common+"2")) || !verify(t, h, Password(common+"1")) {
			t.Errorf("passwords that differ in byte %d only are not told apart", n+1)
		}
	}
}

func TestNormalisation(t *testing.T) {
	t.Parallel()
	for name, pair := range map[string][2]Password{
		"composed and decomposed": {"caf\u00e9 au lait", "cafe\u0301 au lait"},
		"order of marks":          {"a\u0323\u0307bcdefgh", "a\u0307\u0323bcdefgh"},
		"hangul":                  {"\ud55c\uae00 password", "\u1112\u1161\u11ab\u1100\u1173\u11af password"},
		"full width":              {"password", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44"},
		"half-width katakana":     {"\u30d1\u30b9\u30ef\u30fc\u30c9", "\uff8a\uff9f\uff7d\uff9c\uff70\uff84\uff9e"},
	} {
		if pair[0] == pair[1] {
			t.Fatalf("%s: the pair is equal", name)
		}
		if !verify(t, hashed(t, pair[0]), pair[1]) || !verify(t, hashed(t, pair[1]), pair[0]) {
			t.Errorf("%s: the two spellings don't verify", name)
		}
	}
	for _, pair := range [][2]Password{{"Password", "password"}, {"пароль12", "паpоль12"}, {"password", "password "}} {
		if verify(t, hashed(t, pair[0]), pair[1]) {
			t.Errorf("%s verifies as another password", string(pair[0]))
		}
	}
}

func TestPlainHashSeesTheBytesAsTyped(t *testing.T) {
	t.Parallel()
	typed := "cafe\u0301 au lait"
	made, err := bcrypt.GenerateFromPassword([]byte(typed), MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"$2a$", "$2b$", "$2y$"} {
		h := Hash(prefix + string(made[4:]))
		if !verify(t, h, Password(typed)) || verify(t, h, "wrong") {
			t.Errorf("%s hash doesn't verify", prefix)
		}
		if !NeedsRehash(h, MinCost) {
			t.Errorf("NeedsRehash(%s) = false, want true", prefix)
		}
	}
}

func TestComputationIsThatOfTheReference(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 55, 71, 72} {
		key := strings.Repeat("x", n)
		made, err := bcrypt.GenerateFromPassword([]byte(key), 7)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parse(Hash(made))
		if err != nil {
			t.Fatal(err)
		}
		m := s.method.(bcryptMethod)
		run, slices := newBcryptRun(key, m.salt, m.cost), 1
		for ; !run.advance(); slices++ {
		}
		if want := 1 << m.cost / bcryptSlice; slices != want {
			t.Errorf("computed in %d slices, want %d", slices, want)
		}
		if got := run.digest(); got != s.digest {
			t.Errorf("digest of %d bytes = %s, want %s", n, got, s.digest)
		}
	}
}

func TestStoredFormIsReadableElsewhere(t *testing.T) {
	t.Parallel()
	h := string(hashed(t, "correct horse"))
	salt, digest, found := strings.Cut(strings.TrimPrefix(h, "$bcrypt-sha256$v=2,t=2b,r=4$"), "$")
	if !found {
		t.Fatalf("New = %q, want the form of bcrypt_sha256 version 2", h)
	}
	mac := hmac.New(sha256.New, []byte(salt))
	mac.Write([]byte("correct horse"))
	key := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if err := bcrypt.CompareHashAndPassword([]byte("$2b$04$"+salt+digest), []byte(key)); err != nil {
		t.Errorf("reference verification of %q: %v", h, err)
	}
}

func TestUnusablePasswordsAreRefused(t *testing.T) {
	t.Parallel()
	h := hashed(t, "correct horse")
	for name, test := range map[string]struct {
		password Password
		want     []Reason
	}{
		"too long":      {Password(strings.Repeat("a", MaxBytes+1)), []Reason{TooLong}},
		"invalid UTF-8": {"correct\xffhorse", []Reason{InvalidUTF8}},
		"NUL":           {"correct\x00horse", []Reason{ContainsNUL}},
		"both":          {"correct\x00horse\xc3", []Reason{InvalidUTF8, ContainsNUL}},
	} {
		_, onNew := New(test.password, MinCost)
		_, onVerify := Verify(h, test.password)
		for call, err := range map[string]error{"New": onNew, "Verify": onVerify, "Check": policy(t, PolicyConfig{Type: "lenient"}).Check(test.password, Subject{})} {
			var refused *RefusedError
			if !errors.As(err, &refused) || !errors.Is(err, ErrRefused) {
				t.Errorf("%s: %s = %v, want a RefusedError", name, call, err)
				continue
			}
			if diff := cmp.Diff(test.want, refused.Reasons); diff != "" {
				t.Errorf("%s: %s reasons (-want +got):\n%s", name, call, diff)
			}
			if strings.Contains(err.Error(), "horse") {
				t.Errorf("%s: the error shows the password", name)
			}
		}
	}
	longest := Password(strings.Repeat("é", MaxBytes/2))
	if !verify(t, hashed(t, longest), longest) {
		t.Errorf("Verify of %d bytes = false, want true", MaxBytes)
	}
}

func TestUnreadableHashes(t *testing.T) {
	t.Parallel()
	good := string(hashed(t, "correct horse"))
	plain := "$2b$04$" + strings.Repeat(".", 53)
	for name, test := range map[string]struct {
		hash string
		want error
	}{
		"empty":            {"", ErrUnknownScheme},
		"text":             {"correct horse", ErrUnknownScheme},
		"truncated":        {good[:len(good)-1], ErrUnknownScheme},
		"longer":           {good + ".", ErrUnknownScheme},
		"line break":       {good[:len(good)-1] + "\n", ErrUnknownScheme},
		"version 1":        {strings.Replace(good, "v=2", "v=1", 1), ErrUnknownScheme},
		"leading zero":     {strings.Replace(good, "r=4", "r=04", 1), ErrUnknownScheme},
		"signed cost":      {strings.Replace(good, "r=4", "r=+4", 1), ErrUnknownScheme},
		"cost too high":    {strings.Replace(good, "r=4", "r=16", 1), ErrCost},
		"cost too low":     {strings.Replace(good, "r=4", "r=3", 1), ErrCost},
		"plain too high":   {strings.Replace(plain, "04", "31", 1), ErrCost},
		"plain 2x":         {strings.Replace(plain, "2b", "2x", 1), ErrUnknownScheme},
		"plain truncated":  {plain[:59], ErrUnknownScheme},
		"foreign alphabet": {plain[:59] + "!", ErrUnknownScheme},
	} {
		_, err := Verify(Hash(test.hash), "correct horse")
		if !errors.Is(err, test.want) || !errors.Is(Check(Hash(test.hash)), test.want) {
			t.Errorf("%s: Verify = %v, want %v", name, err, test.want)
		}
		if !NeedsRehash(Hash(test.hash), MinCost) {
			t.Errorf("%s: NeedsRehash = false, want true", name)
		}
	}
	for _, cost := range []int{-1, 0, MinCost - 1, MaxCost + 1, 31, 1 << 40} {
		if _, err := New("correct horse", cost); !errors.Is(err, ErrCost) {
			t.Errorf("New with cost %d = %v, want %v", cost, err, ErrCost)
		}
	}
}

func TestNeedsRehash(t *testing.T) {
	t.Parallel()
	h := hashed(t, "correct horse")
	if NeedsRehash(h, MinCost) {
		t.Error("NeedsRehash at the same cost = true, want false")
	}
	if !NeedsRehash(h, MinCost+1) {
		t.Error("NeedsRehash at another cost = false, want true")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	secret, h := Password("correct horse"), hashed(t, "correct horse")
	record := struct {
		Password Password
		Hash     Hash
		Pointer  *Hash
	}{secret, h, &h}
	var out bytes.Buffer
	for _, v := range []any{secret, &secret, h, &h, record, &record, []Hash{h}, map[string]Password{"p": secret}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %X %d\n", v, v, v, v, v, v, v, v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		data, err := json.Marshal(v)
		if !errors.Is(err, ErrSecret) {
			t.Errorf("json.Marshal(%T) = %s, %v, want %v", v, data, err, ErrSecret)
		}
	}
	for _, form := range []string{"correct", string(h)[30:], fmt.Sprintf("%x", "correct"), fmt.Sprintf("%X", "correct")} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is shown in %s", form, out.String())
		}
	}

	var request struct{ Password Password }
	if err := json.Unmarshal([]byte(`{"password":"correct horse"}`), &request); err != nil || request.Password != secret {
		t.Errorf("json.Unmarshal = %q, %v", string(request.Password), err)
	}
}

func TestHashReachesTheDatabaseAsItself(t *testing.T) {
	t.Parallel()
	h := hashed(t, "correct horse")
	for _, format := range []int16{pgtype.TextFormatCode, pgtype.BinaryFormatCode} {
		for _, value := range []any{h, &h} {
			data, err := pgtype.NewMap().Encode(pgtype.TextOID, format, value, nil)
			if err != nil || string(data) != string(h) {
				t.Errorf("Encode(%T) = %q, %v", value, data, err)
			}
		}
	}
	var back Hash
	if err := pgtype.NewMap().Scan(pgtype.TextOID, pgtype.TextFormatCode, []byte(h), &back); err != nil || back != h {
		t.Errorf("Scan = %q, %v", string(back), err)
	}
	all := []Hash{h, h}
	data, err := pgtype.NewMap().Encode(pgtype.TextArrayOID, pgtype.TextFormatCode, all, nil)
	if err != nil || strings.Count(string(data), string(h)) != 2 {
		t.Errorf("Encode of an array = %q, %v", data, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, h := range foreign {
		f.Add(string(h.hash))
	}
	f.Add("$2b$31$" + strings.Repeat("\n", 53))
	f.Add("$bcrypt-sha256$v=2,t=2b,r=$$")
	f.Add("$argon2id$v=19$m=262144,t=4294967296,p=64$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(Hash(text))
		if err != nil {
			if !errors.Is(err, ErrUnknownScheme) && !errors.Is(err, ErrCost) {
				t.Errorf("parse(%q) = %v", text, err)
			}
			return
		}
		work := 0.0 // as a share of the most there may be
		switch m := s.method.(type) {
		case bcryptMethod:
			work = float64(int(1)<<m.cost) / (1 << MaxCost)
			if m.cost < MinCost || len(s.digest) != digestChars || len(m.saltText) != saltChars {
				t.Errorf("parse(%q) = %+v", text, s)
			}
			if m.key == hmacKey && string(m.encode(s.digest)) != text {
				t.Errorf("parse(%q) encodes as %q", text, string(m.encode(s.digest)))
			}
		case argon2Method:
			work = float64(m.blocks) * float64(m.passes) / maxArgon2Blocks
		case scryptMethod:
			work = float64(m.n) * float64(m.r) * float64(m.p) * 128 / maxScryptBytes
		case pbkdf2Method:
			size := m.hash().Size()
			work = float64(m.iterations) * float64((m.length+size-1)/size) / maxIterations
		}
		if work <= 0 || work > 1 || s.memory() > maxMemory || len(s.digest) < minDigestBytes || len(s.digest) > maxDigestBytes {
			t.Errorf("parse(%q) = %+v, which is %v of the most", text, s, work)
		}
		if work < 1e-3 {
			if _, err := compute(s.method, "correct horse"); err != nil {
				t.Errorf("compute for %q: %v", text, err)
			}
		}
	})
}
