// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const (
	lowerLetters = "abcdefghijklmnopqrstuvwxyz"
	upperLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letterDigits = lowerLetters + upperLetters + "0123456789"
)

func randomOf(r *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func randomJWT(r *rand.Rand) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc([]byte(`{"sub":"`+randomOf(r, lowerLetters, 12)+`"}`)) + "." + randomOf(r, letterDigits+"-_", 43)
}

// prose is sentences that say of a secret nothing that a program can know. It has to be seen by its shape.
var prose = []string{
	"%s", "refused %s", "the caller sent %s which is not valid", "the caller sent '%s' which is not valid",
	`the caller sent "%s" which is not valid`, "refused (%s) at once", "refused [%s] at once", "refused <%s> at once", "refused {%s} at once",
	"refused: %s", "refused:%s", "refused, %s, again", "refused=%s again", "refused %s.", "refused %s: not known", "refused %s; not known", "refused `%s`", "last one was %s!",
	"from %s to nowhere", "is it %s?", "it's %s that the caller's friend sent",
	`caller {"value":"%s"} refused`, `value="%s" refused`, "value='%s' refused", "values=[%s] refused", "a,%s,b", "a/%s/b",
	"/cb?value=%s&x=y", "https://example.com/cb?value=%s", "refused -%s", "refused --value=%s",
}

// named is sentences that name the secret.
var named = []string{
	"password=%s", "password: %s", "password:%s given", "password = %s", "password is set, password=%s", `"password":"%s"`, `"password": "%s" given`,
	`login {"user":"bob","password":"%s"} refused`, "'password': '%s'", `password="%s"`, "password='%s' given", "PASSWORD=%s", "DB_PASSWORD=%s", "db_password: %s given",
	"userPassword: %s given", "--password=%s given", "--password %s given", "passwd: %s", "pwd=%s;", "Server=db;Password=%s;Encrypt=yes", "secret: %s", "client_secret=%s", "client-secret: %s",
	"clientSecret: %s", "token: %s given", "token=%s&x=y", "access_token: %s", "api_key: %s", "apikey: %s given", "X-Api-Key: %s", "x-auth-token: %s", "Cookie: %s", "Set-Cookie: sid=%s; Path=/",
	"Authorization: Bearer %s", "authorization: bearer %s given", "Authorization: Basic %s", "Authorization: %s", "Authorization: Token %s given",
	`headers [Authorization: "Bearer %s"]`, `-H "Authorization: Bearer %s" given`, "sent Bearer %s on", "header is 'Bearer %s'",
	"postgres://app:%s@db.example.com/app is down", "redis://:%s@cache:6379 is down", "https://bob:%s@example.com/a is down", "dsn app:%s@tcp(db:3306)/app is down",
}

// mentioned is sentences with the name of a secret before what may as well be a word, as in "password expired".
var mentioned = []string{"password for bob: %s", "new password %s set", "passphrase %s given", "apikey %s given"}

// secretKinds make values that are not to be in a template. Those of letters only are known by their names alone.
var secretKinds = []struct {
	name  string
	forms []string
	value func(r *rand.Rand) string
}{
	{"password of letters", named, func(r *rand.Rand) string { return randomOf(r, lowerLetters, 8+r.IntN(8)) }},
	{"password of letters and signs", named, func(r *rand.Rand) string {
		return randomOf(r, lowerLetters, 5) + "!" + randomOf(r, upperLetters, 5) + "$" + "zq"
	}},
	{"token of letters and digits", slices.Concat(prose, named, mentioned), func(r *rand.Rand) string { return randomOf(r, letterDigits, 30) + "7x" }},
	{"token of mixed letters", prose, func(r *rand.Rand) string { return randomOf(r, lowerLetters+upperLetters, 32) }},
	{"hex", slices.Concat(prose, named, mentioned), func(r *rand.Rand) string { return randomOf(r, "0123456789abcdef", 30) + "0f" }},
	{"hex of letters", prose, func(r *rand.Rand) string { return randomOf(r, "abcdef", 16) }},
	{"UUID", prose, func(r *rand.Rand) string {
		return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", r.Uint32(), r.IntN(1<<16), r.IntN(1<<12), r.IntN(1<<12), r.Uint64()>>16)
	}},
	{"base64", slices.Concat(prose, named, mentioned), func(r *rand.Rand) string {
		return base64.StdEncoding.EncodeToString([]byte("7" + randomOf(r, letterDigits, 24)))
	}},
	{"JWT", slices.Concat(prose, named, mentioned), randomJWT},
	{"AWS key", prose, func(r *rand.Rand) string { return "AKIA" + randomOf(r, upperLetters+"234567", 15) + "7" }},
	{"AWS key of letters", prose, func(r *rand.Rand) string { return "AKIA" + randomOf(r, upperLetters, 16) }},
	{"GitHub token", prose, func(r *rand.Rand) string { return "ghp_" + randomOf(r, letterDigits, 35) + "3" }},
	{"OpenAI key", prose, func(r *rand.Rand) string { return "sk-" + randomOf(r, letterDigits, 47) + "3" }},
	{"Slack token", prose, func(r *rand.Rand) string {
		return "xoxb-" + randomOf(r, "0123456789", 12) + "-" + randomOf(r, letterDigits, 24)
	}},
	{"card", prose, func(r *rand.Rand) string { return "4" + randomOf(r, "0123456789", 15) }},
	{"card in groups", prose, func(r *rand.Rand) string {
		d := func() string { return randomOf(r, "0123456789", 4) }
		return d() + " " + d() + " " + d() + " " + d()
	}},
	{"card with hyphens", prose, func(r *rand.Rand) string {
		d := func() string { return randomOf(r, "0123456789", 4) }
		return d() + "-" + d() + "-" + d() + "-" + d()
	}},
	{"phone number", prose, func(r *rand.Rand) string {
		return "+49 (30) " + randomOf(r, "0123456789", 4) + "-" + randomOf(r, "0123456789", 4)
	}},
	{"mail", prose, func(r *rand.Rand) string {
		return randomOf(r, lowerLetters, 6) + "@" + randomOf(r, lowerLetters, 7) + ".com"
	}},
	{"mail with dots", prose, func(r *rand.Rand) string {
		return randomOf(r, lowerLetters, 6) + "." + randomOf(r, lowerLetters, 6) + "+shop@mail." + randomOf(r, lowerLetters, 7) + ".co.uk"
	}},
	{"mail with an apostrophe", prose, func(r *rand.Rand) string {
		return "o'" + randomOf(r, lowerLetters, 6) + "@" + randomOf(r, lowerLetters, 7) + ".com"
	}},
	{"IBAN", prose, func(r *rand.Rand) string { return "DE" + randomOf(r, "0123456789", 20) }},
	{"IBAN in groups", prose, func(r *rand.Rand) string {
		d := func() string { return randomOf(r, "0123456789", 4) }
		return "DE" + randomOf(r, "0123456789", 2) + " " + d() + " " + d() + " " + d() + " " + d() + " " + randomOf(r, "0123456789", 2)
	}},
	{"private IPv4", prose, func(r *rand.Rand) string { return fmt.Sprintf("10.%d.%d.%d", r.IntN(250), r.IntN(250), 100+r.IntN(99)) }},
	{"IPv4 and port", prose, func(r *rand.Rand) string {
		return fmt.Sprintf("192.168.%d.%d:%d", r.IntN(250), r.IntN(250), 1000+r.IntN(9000))
	}},
	{"private IPv6", prose, func(r *rand.Rand) string {
		return "fd00:" + randomOf(r, "0123456789abcdef", 4) + "::" + randomOf(r, "abcdef", 4) + ":" + randomOf(r, "abcdef", 4)
	}},
	{"IPv6 of letters", prose, func(r *rand.Rand) string {
		return "fe" + randomOf(r, "abcdef", 2) + "::" + randomOf(r, "abcdef", 4) + ":" + randomOf(r, "abcdef", 4)
	}},
	{"MAC", prose, func(r *rand.Rand) string {
		b := make([]string, 6)
		for i := range b {
			b[i] = randomOf(r, "0123456789abcdef", 2)
		}
		return strings.Join(b, ":")
	}},
	{"path", prose, func(r *rand.Rand) string {
		return "/home/" + randomOf(r, lowerLetters, 7) + "/" + randomOf(r, lowerLetters, 9)
	}},
	{"path at home", prose, func(r *rand.Rand) string {
		return "~/" + randomOf(r, lowerLetters, 7) + "/" + randomOf(r, lowerLetters, 9)
	}},
	{"path of Windows", prose, func(r *rand.Rand) string {
		return `C:\Users\` + randomOf(r, lowerLetters, 7) + `\` + randomOf(r, lowerLetters, 9) + ".txt"
	}},
	{"share of Windows", prose, func(r *rand.Rand) string {
		return `\\` + randomOf(r, lowerLetters, 7) + `\` + randomOf(r, lowerLetters, 9)
	}},
	{"URL", prose, func(r *rand.Rand) string {
		return "https://" + randomOf(r, lowerLetters, 7) + ".com/" + randomOf(r, lowerLetters, 9) + "?q=" + randomOf(r, lowerLetters, 9)
	}},
	{"private key", prose, func(r *rand.Rand) string {
		return "MIIEvQIBADANBgkqhkiG9w0BAQ" + randomOf(r, letterDigits+"+/", 60) + "=="
	}},
}

// survivor returns a part of four bytes or more of a secret that is in a template but not in the sentence, "" for none.
func survivor(template, secret, form string) string {
	longest := ""
	for i := range secret {
		for n := max(4, len(longest)+1); i+n <= len(secret); n++ {
			part := secret[i : i+n]
			if !strings.Contains(template, part) || strings.Contains(form, part) {
				break
			}
			longest = part
		}
	}
	return longest
}

// TestTemplatesKeepNoSecret has each kind of secret in many sentences, two values each.
func TestTemplatesKeepNoSecret(t *testing.T) {
	for _, kind := range secretKinds {
		t.Run(kind.name, func(t *testing.T) {
			r := seeded(47)
			for _, form := range kind.forms {
				for i := 0; i < 8 && keepsNoSecret(t, form, kind.value(r), kind.value(r)); i++ {
				}
			}
		})
	}
}

func keepsNoSecret(t *testing.T, form string, secrets ...string) bool {
	t.Helper()
	m := New(Options{})
	for i, secret := range secrets {
		text := fmt.Sprintf(form, secret)
		template := m.Add([]byte(text), LevelInfo).Template()
		if i > 0 {
			template = m.Redact([]byte(text))
		} else if got := m.Redact([]byte(text)); got != template {
			t.Errorf("%q seen once is %q, but redacted %q", text, template, got)
		}
		if part := survivor(template, secret, form); part != "" || strings.ContainsAny(template, "0123456789") {
			t.Errorf("%q seen once is %q, which has %q", text, template, part)
			return false
		}
	}
	m.Learn()
	for _, secret := range secrets {
		text := fmt.Sprintf(form, secret)
		template := m.Find([]byte(text)).Template()
		if part := survivor(template, secret, form); part != "" {
			t.Errorf("%q is %q, which has %q", text, template, part)
			return false
		}
	}
	return true
}
