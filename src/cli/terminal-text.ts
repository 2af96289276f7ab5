// Makes text safe for a terminal: text of events, keys and errors may come from anyone, and a terminal would obey its escape sequences. Pure.

/** Control characters except tab and line feed, halves of surrogate pairs, line separators, and the characters that reorder text. */
const unsafe = /(?![\t\n])[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/** Text with such characters as JSON escapes, for example `\u001b`. Tabs and line feeds stay, and JSON text keeps its meaning. */
export const terminalText = (text: string): string => text.replaceAll(unsafe, escaped)

/** As `terminalText`, for a value within a line: its line feeds and tabs are escaped too, so that it cannot look like another line. */
export const terminalLine = (text: string): string => terminalText(text).replaceAll("\n", "\\n").replaceAll("\t", "\\t")
