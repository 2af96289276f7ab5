// The inputs of a form that was made from a schema.
import { html } from "../lib/html.js"
import { Field } from "./common.js"

const Input = ({ field: { isRequired, kind, name, values }, onText, text }) => {
  const set = (event) => onText(event.target.value)
  if (kind === "choice" || kind === "flag")
    return html`<select value=${text} onChange=${set} required=${isRequired && kind === "choice"}>
      <option value=""></option>
      ${(values ?? ["true", "false"]).map((value) => html`<option key=${value}>${String(value)}</option>`)}
    </select>`
  if (kind === "json")
    return html`<textarea rows="3" value=${text} onInput=${set} required=${isRequired} spellcheck="false"></textarea>`
  return html`<input
    name=${name}
    value=${text}
    onInput=${set}
    required=${isRequired && kind === "number"}
    inputmode=${kind === "number" ? "decimal" : undefined}
    autocomplete="off"
  />`
}

/** Inputs for `fields`; `texts` is what was typed, by name. Constants need no input. */
export const Inputs = ({ fields, onTexts, texts }) =>
  fields
    .filter(({ kind }) => kind !== "constant")
    .map(
      (field) =>
        html`<${Field}
          key=${field.name}
          label=${`${field.name}${field.isRequired ? "" : " (optional)"}`}
          hint=${field.hint}
        >
          <${Input}
            field=${field}
            text=${texts[field.name] ?? ""}
            onText=${(text) => onTexts({ ...texts, [field.name]: text })}
          />
        <//>`
    )
