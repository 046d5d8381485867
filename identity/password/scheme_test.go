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

func hash(t testing.TB, p Password) Hash {
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
		h := hash(t, phrase)
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
		h := hash(t, Password(common+"1"))
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
		if !verify(t, hash(t, pair[0]), pair[1]) || !verify(t, hash(t, pair[1]), pair[0]) {
			t.Errorf("%s: the two spellings don't verify", name)
		}
	}
	for _, pair := range [][2]Password{{"Password", "password"}, {"пароль12", "паpоль12"}, {"password", "password "}} {
		if verify(t, hash(t, pair[0]), pair[1]) {
			t.Errorf("%s verifies as another password", string(pair[0]))
		}
	}
}

// Made by passlib 1.7.4 and found in its documentation, and by the crypt_blowfish test suite.
func TestHashesOfOtherSoftware(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hash     Hash
		password Password
	}{
		{"$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2", "password"},
		{"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
		{"$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"},
		{"$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "U*U*U"},
	} {
		if !verify(t, test.hash, test.password) {
			t.Errorf("Verify(%q) = false, want true", string(test.hash))
		}
		if verify(t, test.hash, test.password+"x") {
			t.Errorf("Verify(%q, wrong) = true, want false", string(test.hash))
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
	for n := range 73 {
		key := strings.Repeat("x", n)
		made, err := bcrypt.GenerateFromPassword([]byte(key), MinCost)
		if err != nil {
			t.Fatal(err)
		}
		s, err := parse(Hash(made))
		if err != nil {
			t.Fatal(err)
		}
		run := newBcryptRun(key, s.salt, s.cost)
		for !run.advance(3) {
		}
		if got := run.digest(); got != s.digest {
			t.Errorf("digest of %d bytes = %s, want %s", n, got, s.digest)
		}
	}
}

func TestStoredFormIsReadableElsewhere(t *testing.T) {
	t.Parallel()
	h := string(hash(t, "correct horse"))
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
	h := hash(t, "correct horse")
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
	if !verify(t, hash(t, longest), longest) {
		t.Errorf("Verify of %d bytes = false, want true", MaxBytes)
	}
}

func TestUnreadableHashes(t *testing.T) {
	t.Parallel()
	good := string(hash(t, "correct horse"))
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
		"argon2id":         {"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG", ErrUnknownScheme},
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
	h := hash(t, "correct horse")
	if NeedsRehash(h, MinCost) {
		t.Error("NeedsRehash at the same cost = true, want false")
	}
	if !NeedsRehash(h, MinCost+1) {
		t.Error("NeedsRehash at another cost = false, want true")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	secret, h := Password("correct horse"), hash(t, "correct horse")
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
	h := hash(t, "correct horse")
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
	f.Add("$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2")
	f.Add("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
	f.Add("$2b$31$" + strings.Repeat("\n", 53))
	f.Add("$bcrypt-sha256$v=2,t=2b,r=$$")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(Hash(text))
		if err != nil {
			if !errors.Is(err, ErrUnknownScheme) && !errors.Is(err, ErrCost) {
				t.Errorf("parse(%q) = %v", text, err)
			}
			return
		}
		if s.cost < MinCost || s.cost > MaxCost || len(s.digest) != digestChars || len(s.saltText) != saltChars {
			t.Errorf("parse(%q) = %+v", text, s)
		}
		if s.prehashed && string(s.encode(s.digest)) != text {
			t.Errorf("parse(%q) encodes as %q", text, string(s.encode(s.digest)))
		}
	})
}
