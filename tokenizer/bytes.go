package tokenizer

import "unicode/utf8"

// byteChars spells each byte as a printable character, GPT-2's way: the 188 printable Latin-1 bytes stand for
// themselves, the others become U+0100, U+0101, … in order.
var byteChars, charBytes = func() (chars [256]rune, bytes [324]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	next := rune(256)
	for b := range chars {
		c := rune(b)
		if !('!' <= c && c <= '~' || 0xA1 <= c && c <= 0xAC || 0xAE <= c && c <= 0xFF) {
			c = next
			next++
		}
		chars[b], bytes[c] = c, int16(b)
	}
	return chars, bytes
}()

// appendBytes appends the bytes a byte-level token stands for. A token with any other character (an added token may
// have them) stands for its own UTF-8.
func appendBytes(dst []byte, token string) []byte {
	from := len(dst)
	for _, c := range token {
		if int(c) >= len(charBytes) || charBytes[c] < 0 {
			return append(dst[:from], token...)
		}
		dst = append(dst, byte(charBytes[c]))
	}
	return dst
}

// appendLossy appends the text of b to dst and returns the bytes that could still become a character. With final set
// nothing is kept back. Each maximal part of a broken sequence becomes one U+FFFD, as in Rust's from_utf8_lossy and
// the WHATWG encoding standard; Go's own conversions give one for each byte.
func appendLossy(dst, b []byte, final bool) (text, rest []byte) {
	for len(b) > 0 {
		if b[0] < utf8.RuneSelf {
			dst, b = append(dst, b[0]), b[1:]
			continue
		}
		c, size := utf8.DecodeRune(b)
		switch {
		case c != utf8.RuneError || size == 3: // a real U+FFFD has three bytes
			dst = append(dst, b[:size]...)
		case !utf8.FullRune(b):
			if !final {
				return dst, b
			}
			size = len(b)
			dst = append(dst, "\uFFFD"...)
		default:
			size = 1
			for n := 2; n <= 3 && n <= len(b) && !utf8.FullRune(b[:n]); n++ {
				size = n
			}
			dst = append(dst, "\uFFFD"...)
		}
		b = b[size:]
	}
	return dst, nil
}
