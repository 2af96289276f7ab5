// How this process's user runs Millrace's command line. Pure.

/** What precedes the name of a command in advice that can be copied to a shell. */
export const ownCommand = "Deno" in globalThis ? "deno run -A npm:millrace" : "npx millrace"
