// What is wrong, or should be known, with what to do about it and the command that does it.
import { html } from "../lib/html.js"
import { Command } from "./common.js"

/** A command in the text of an advice, if it has one. */
const commandIn = (advice) => /(?:npx )?(millrace [a-z][^;,\n]*)/.exec(advice ?? "")?.[1]
/** The findings of a status, at most 20. `kind` is their look: `problem` or `note-box`. */
export const Findings = ({ findings, kind }) =>
  findings.slice(0, 20).map(({ message, try: advice, what }) => {
    const command = commandIn(advice)
    return html`<div class=${kind} key=${`${what} ${message.slice(0, 40)}`}>
      <p><strong>${what}</strong>: ${message}</p>
      ${advice && html`<p>What to do: ${advice}</p>`} ${command && html`<${Command} text=${`npx ${command}`} />`}
    </div>`
  })
