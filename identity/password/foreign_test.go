package password

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

func digestOf(t *testing.T, m method, password Password) string {
	t.Helper()
	digest, err := compute(m, password)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// Hashes that other software made, or that its documentation and tests publish.
var foreign = []struct {
	origin   string
	hash     Hash
	password Password
}{
	{"passlib 1.7.4", "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2", "password"},
	{"crypt_blowfish", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U"},
	{"crypt_blowfish", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*"},
	{"crypt_blowfish", "$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "U*U*U"},
	{"Django", "bcrypt$$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "U*U*U"},
	{"Django", "bcrypt_sha256$$2b$12$VADBCPlCt0wMa2zjUgaXl.jnrvoNt/kgjtRY7i./fo0V2IEp1l6f2", "password"},

	{"phc-winner-argon2", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8", "password"},
	{"phc-winner-argon2", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password"},
	{"passlib 1.7.4", "$argon2i$v=19$m=512,t=2,p=2$aI2R0hpDyLm3ltLa+1/rvQ$LqPKjd6n8yniKtAithoR7A", "password"},
	{"Django", "argon2$argon2i$v=19$m=512,t=2,p=2$NnFZNGxmQTE1bmFV$kPPGrqD6dnRllcQeksFN+w", "admin"},

	{"RFC 7914", "$scrypt$ln=10,r=8,p=16$TmFDbA$/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWIurzDZLiKjiG/xCSedmDDaxyevuUqD7m2DYMvfoswGQA", "password"},
	{"RFC 7914", "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw", "pleaseletmein"},
	{"Django", "scrypt$16384$seasalt$8$1$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw==", "lètmein"},

	{"passlib 1.7.4", "$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44", "password"},
	{"hashcat", "$pbkdf2-sha512$25000$LyWE0HrP2RsjZCxlDGFMKQ$1vC5Ohk2mCS9b6akqsEfgeb4l74SF8XjH.SljXf3dMLHdlY1GK9ojcCKts6/asR4aPqBmk74nCDddU3tvSCJvw", "hashcat"},
	{"hashlib", "$pbkdf2$1212$.vv8/f7/AAAAAAAAAAAAAA$reMOdcHZX6AnSFe.UMFhB06csiM", "password"},
	{"hashlib", "$pbkdf2-sha1$i=1000$c29tZXNhbHRTQUxU$otFBE4HXVwRYVvG9UTcfEpJH/dA", "password"},
	{"hashlib", "$pbkdf2-sha256$i=4096,l=32$+/++c29tZXNhbHQ$JMNnfZlbuiBfo2PKXSS7B1lLVrl7YIfkRGcWcrqKE0M", "password"},
	{"hashlib", "$pbkdf2-sha256$i=1000,l=64$c29tZXNhbHRTQUxU$mjPs126C7QQdYaiO79KprcicgquwBxQpfDk68MgDXnhIo5VwvE4TRJvlS6p+S3f2agxPTxV9Sihq96VuryG4HA", "password"},
	{"hashlib", "$pbkdf2-sha512$i=1000$c29tZXNhbHRTQUxU$cct1lTpmhnaLILodVvSeueT7n5a4QLUOTDJMspoWKV0mVGZVtDVcBptQMeBVXCs2UT+8QzvwOVx0VK3GUIxLIw", "password"},
	{"Django", "pbkdf2_sha256$10000$seasalt2ndtry$O6D+F1sJ4bOvpgshWRJsB5CVB4tLbtSwxahbFjWfaWM=", "lètmein"},
	{"Django", "pbkdf2_sha1$10000$seasalt2ndtry$7cGVw7QqfJ9eOhhO43cK97YsBkQ=", "lètmein"},
}

func TestHashesOfOtherSoftware(t *testing.T) {
	t.Parallel()
	for _, test := range foreign {
		if err := Check(test.hash); err != nil {
			t.Errorf("%s: Check(%q) = %v, want nil", test.origin, string(test.hash), err)
			continue
		}
		if !verify(t, test.hash, test.password) {
			t.Errorf("%s: Verify(%q) = false, want true", test.origin, string(test.hash))
		}
		if !NeedsRehash(test.hash, DefaultCost+1) {
			t.Errorf("%s: NeedsRehash(%q) = false, want true", test.origin, string(test.hash))
		}
		if own := strings.HasPrefix(string(test.hash), "$bcrypt-sha256$"); NeedsRehash(test.hash, DefaultCost) == own {
			t.Errorf("%s: NeedsRehash(%q) = %v, want %v", test.origin, string(test.hash), own, !own)
		}
	}
}

func TestForeignHashesSeeTheBytesAsTyped(t *testing.T) {
	t.Parallel()
	composed, decomposed := "caf\u00e9 au lait", "cafe\u0301 au lait"
	sum := sha256.Sum256([]byte(decomposed))
	made, err := bcrypt.GenerateFromPassword([]byte(hex.EncodeToString(sum[:])), MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []method{
		argon2Method{key: argon2.IDKey, blocks: 8, passes: 1, lanes: 1, salt: []byte("somesalt"), length: 32},
		scryptMethod{n: 2, r: 1, p: 1, salt: []byte("somesalt"), length: 32},
		pbkdf2Method{hash: sha256.New, iterations: minIterations, salt: []byte("somesalt"), length: 32},
	} {
		if digestOf(t, m, Password(composed)) == digestOf(t, m, Password(decomposed)) {
			t.Errorf("%T normalises", m)
		}
	}
	h := Hash("bcrypt_sha256$" + string(made))
	if !verify(t, h, Password(decomposed)) || verify(t, h, Password(composed)) {
		t.Error("bcrypt_sha256 normalises, or doesn't verify")
	}
}

func TestScryptRFC7914(t *testing.T) {
	t.Parallel()
	m := scryptMethod{n: 16, r: 1, p: 1, length: 64}
	const want = "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906"
	if got := hex.EncodeToString([]byte(digestOf(t, m, ""))); got != want {
		t.Errorf("digest = %s, want %s", got, want)
	}
}

// The examples of RFC 6070 and of RFC 7914, section 11.
func TestPBKDF2RFCs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		hash           func() hash.Hash
		password, salt string
		iterations     int
		want           string
	}{
		{sha1.New, "password", "salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"},
		{sha1.New, "password", "salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"},
		{sha1.New, "password", "salt", 4096, "4b007901b765489abead49d926f721d065a429c1"},
		{sha1.New, "passwordPASSWORDpassword", "saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"},
		{sha1.New, "pass\x00word", "sa\x00lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3"},
		{sha256.New, "passwd", "salt", 1, "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"},
		{sha256.New, "Password", "NaCl", 80000, "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"},
	} {
		m := pbkdf2Method{hash: test.hash, iterations: test.iterations, salt: []byte(test.salt), length: len(test.want) / 2}
		if got := digestOf(t, m, Password(test.password)); hex.EncodeToString([]byte(got)) != test.want {
			t.Errorf("%q, %d iterations: digest = %x, want %s", test.password, test.iterations, got, test.want)
		}
	}
}

// replaced is the hash with one part of it replaced, of the parts between $.
func replaced(h string, part int, text string) string {
	parts := strings.Split(h, "$")
	parts[part] = text
	return strings.Join(parts, "$")
}

func TestForeignHashesOutsideTheLimits(t *testing.T) {
	t.Parallel()
	const (
		argon   = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG"
		phc     = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI"
		django  = "scrypt$16384$seasalt$8$5$Qj3+9PPyRjSJIebHnG81TMjsqtaIGxNQG/aEB/NYafTJ7tibgfYz71m0ldQESkXFRkdVCBhhY8mx7rQwite/Pw=="
		passlib = "$pbkdf2-sha256$6400$.6UI/S.nXIk8jcbdHx3Fhg$98jZicV16ODfEsEZeYPGHU3kbrUrvUEXOPimVSQDD44"
		phcPB   = "$pbkdf2-sha256$i=4096,l=32$+/++c29tZXNhbHQ$JMNnfZlbuiBfo2PKXSS7B1lLVrl7YIfkRGcWcrqKE0M"
		djangPB = "pbkdf2_sha256$10000$seasalt2ndtry$O6D+F1sJ4bOvpgshWRJsB5CVB4tLbtSwxahbFjWfaWM="
	)
	// base64 of so many zero bytes.
	zeros := func(n int) string { return strings.Repeat("A", (4*n+2)/3) }
	for _, test := range []struct {
		hash string
		want error
	}{
		{argon, nil},
		{replaced(argon, 3, "m=262144,t=4,p=1"), nil},
		{replaced(argon, 3, "m=8,t=1,p=1"), nil},
		{replaced(argon, 3, "m=262145,t=1,p=1"), nil}, // rounded down
		{replaced(argon, 3, "m=262148,t=1,p=1"), ErrCost},
		{replaced(argon, 3, "m=262144,t=5,p=1"), ErrCost},
		{replaced(argon, 3, "m=2097152,t=1,p=4"), ErrCost},
		{replaced(argon, 3, "m=8,t=131073,p=1"), ErrCost},
		{replaced(argon, 3, "m=7,t=1,p=1"), ErrCost},
		{replaced(argon, 3, "m=0,t=1,p=1"), ErrCost},
		{replaced(argon, 3, "m=65536,t=0,p=1"), ErrCost},
		{replaced(argon, 3, "m=65536,t=1,p=0"), ErrCost},
		{replaced(argon, 3, "m=65536,t=1,p=65"), ErrCost},
		{replaced(argon, 3, "m=4294967296,t=1,p=1"), ErrCost},
		{replaced(argon, 3, "m=65536,t=99999999999999999999,p=1"), ErrCost},
		{replaced(argon, 3, "t=3,m=65536,p=4"), ErrUnknownScheme},
		{replaced(argon, 3, "m=65536,t=3"), ErrUnknownScheme},
		{replaced(argon, 3, "m=65536,t=3,p=4,keyid=a"), ErrUnknownScheme},
		{replaced(argon, 3, "m=065536,t=3,p=4"), ErrUnknownScheme},
		{replaced(argon, 3, "m=+65536,t=3,p=4"), ErrUnknownScheme},
		{replaced(argon, 3, "m=,t=3,p=4"), ErrUnknownScheme},
		{replaced(argon, 3, ""), ErrUnknownScheme},
		{replaced(argon, 2, "v=16"), ErrUnknownScheme},
		{strings.Replace(argon, "v=19$", "", 1), ErrUnknownScheme},
		{replaced(argon, 1, "argon2d"), ErrUnknownScheme},
		{replaced(argon, 4, zeros(4)), nil},
		{replaced(argon, 4, zeros(64)), nil},
		{replaced(argon, 4, ""), ErrCost},
		{replaced(argon, 4, zeros(3)), ErrCost},
		{replaced(argon, 4, zeros(65)), ErrCost},
		{replaced(argon, 5, zeros(16)), nil},
		{replaced(argon, 5, zeros(64)), nil},
		{replaced(argon, 5, ""), ErrCost},
		{replaced(argon, 5, zeros(15)), ErrCost},
		{replaced(argon, 5, zeros(65)), ErrCost},
		{replaced(argon, 5, zeros(2000)), ErrUnknownScheme},
		{argon + "=", ErrUnknownScheme},
		{argon + "$", ErrUnknownScheme},
		{argon + "\n", ErrUnknownScheme},
		{argon[:len(argon)-2] + "\r\n" + argon[len(argon)-2:], ErrUnknownScheme},
		{replaced(argon, 5, zeros(16)[:21]+"B"), ErrUnknownScheme}, // bits that mean nothing
		{"argon2" + argon, nil},
		{"argon2$argon2id$v=19$m=102400,t=2,p=8$YWJjZGVmZ2hpamtsbW5vcHFyc3R1dg$IgorAEoC45Hed6TrnrYvCyIvYcj3785+rmJayoEyW88", nil},
		{"argon2" + phc, ErrUnknownScheme},
		{"argon2", ErrUnknownScheme},

		{phc, nil},
		{"$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", nil},
		{replaced(phc, 2, "ln=18,r=8,p=2"), nil},
		{replaced(phc, 2, "ln=18,r=8,p=3"), ErrCost},
		{replaced(phc, 2, "ln=18,r=9,p=1"), ErrCost},
		{replaced(phc, 2, "ln=19,r=8,p=1"), ErrCost},
		{replaced(phc, 2, "ln=20,r=2,p=1"), nil},
		{replaced(phc, 2, "ln=21,r=1,p=1"), ErrCost},
		{replaced(phc, 2, "ln=64,r=1,p=1"), ErrCost},
		{replaced(phc, 2, "ln=0,r=8,p=1"), ErrCost},
		{replaced(phc, 2, "ln=14,r=0,p=1"), ErrCost},
		{replaced(phc, 2, "ln=14,r=33,p=1"), ErrCost},
		{replaced(phc, 2, "ln=14,r=8,p=0"), ErrCost},
		{replaced(phc, 2, "ln=1,r=1,p=65"), ErrCost},
		{replaced(phc, 2, "ln=14,r=8"), ErrUnknownScheme},
		{replaced(phc, 4, "!"), ErrUnknownScheme},
		{phc + "$", ErrUnknownScheme},

		{django, nil},
		{replaced(django, 1, "16383"), ErrCost},
		{replaced(django, 1, "0"), ErrCost},
		{replaced(django, 1, "1"), ErrCost},
		{replaced(django, 1, "2097152"), ErrCost},
		{replaced(django, 1, "9999999999"), ErrCost},
		{replaced(django, 3, "x"), ErrUnknownScheme},
		{replaced(django, 4, "100"), ErrCost},
		{replaced(django, 2, "abc"), ErrCost},
		{replaced(django, 2, strings.Repeat("a", 65)), ErrCost},
		{strings.TrimRight(django, "="), ErrUnknownScheme},
		{django + "$", ErrUnknownScheme},

		{passlib, nil},
		{replaced(passlib, 2, "1000"), nil},
		{replaced(passlib, 2, "999"), ErrCost},
		{replaced(passlib, 2, "3000000"), nil},
		{replaced(passlib, 2, "3000001"), ErrCost},
		{replaced(passlib, 2, "06400"), ErrUnknownScheme},
		{replaced(passlib, 2, ""), ErrUnknownScheme},
		{replaced(passlib, 1, "pbkdf2-md5"), ErrUnknownScheme},
		{replaced(passlib, 1, "pbkdf2-"), ErrUnknownScheme},
		{replaced(passlib, 3, "+6UI/S+nXIk8jcbdHx3Fhg"), ErrUnknownScheme},
		{replaced(passlib, 4, zeros(15)), ErrCost},
		{passlib + "$", ErrUnknownScheme},

		{phcPB, nil},
		{replaced(phcPB, 2, "i=4096"), nil},
		{replaced(phcPB, 2, "i=3000001"), ErrCost},
		{replaced(phcPB, 2, "i=4096,l=31"), ErrUnknownScheme},
		{replaced(phcPB, 2, "l=32,i=4096"), ErrUnknownScheme},
		{replaced(phcPB, 3, ".6UI/S.nXIk8jcbdHx3Fhg"), ErrUnknownScheme},
		{replaced(replaced(phcPB, 4, zeros(64)), 2, "i=1500000"), nil}, // two blocks
		{replaced(replaced(phcPB, 4, zeros(64)), 2, "i=1500001"), ErrCost},

		{djangPB, nil},
		{replaced(djangPB, 1, "3000001"), ErrCost},
		{replaced(djangPB, 1, "1e6"), ErrUnknownScheme},
		{replaced(djangPB, 2, ""), ErrCost},
		{strings.TrimRight(djangPB, "="), ErrUnknownScheme},
		{replaced(djangPB, 0, "pbkdf2_md5"), ErrUnknownScheme},
		{"bcrypt$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", ErrUnknownScheme},
		{"bcrypt_sha256$$2b$31$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", ErrCost},
		{"md5$seasalt$f5531bef9f3687d0ccf0f617f0e25573", ErrUnknownScheme},
		{"!unusable", ErrUnknownScheme},
	} {
		if err := Check(Hash(test.hash)); !errors.Is(err, test.want) {
			t.Errorf("Check(%q) = %v, want %v", test.hash, err, test.want)
		}
	}
}

func BenchmarkForeign(b *testing.B) {
	for _, h := range []Hash{
		"$2b$12$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a",
		"$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
		"$argon2id$v=19$m=262144,t=4,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG",
		"$scrypt$ln=17,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI",
		"$scrypt$ln=18,r=8,p=2$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI",
		"$pbkdf2-sha1$i=1000000$c29tZXNhbHRTQUxU$otFBE4HXVwRYVvG9UTcfEpJH/dA",
		"$pbkdf2-sha256$i=1000000$+/++c29tZXNhbHQ$JMNnfZlbuiBfo2PKXSS7B1lLVrl7YIfkRGcWcrqKE0M",
		"$pbkdf2-sha512$i=1000000$c29tZXNhbHRTQUxU$cct1lTpmhnaLILodVvSeueT7n5a4QLUOTDJMspoWKV0mVGZVtDVcBptQMeBVXCs2UT+8QzvwOVx0VK3GUIxLIw",
	} {
		name, cost, _ := strings.Cut(strings.TrimPrefix(string(h), "$"), "$")
		b.Run(fmt.Sprintf("%s/%s", name, strings.Split(strings.TrimPrefix(cost, "v=19$"), "$")[0]), func(b *testing.B) {
			for b.Loop() {
				if _, err := Verify(h, "correct horse"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
