// The inputs of a form that was made from a schema, with what is wrong at each.
import {
  below,
  countOf,
  dotted,
  isTimeName,
  nodeOf,
  nowFor,
  optionOf,
  presenceOf,
  sampleOf,
  textsOf,
  valueOf
} from "../lib/forms.js"
import { html, useState } from "../lib/html.js"
import { parseJson } from "../lib/json.js"
import { Field } from "./common.js"

const hintOf = ({ description, kind, schema: { contentEncoding, pattern, type }, words = [] }) =>
  [
    description,
    type === "integer" ? "a whole number" : "",
    words.length > 0 ? `a number, or ${words.join(", ")}` : "",
    contentEncoding === "base64" ? "bytes in base64" : "",
    pattern ? `as ${pattern}` : "",
    kind === "json" ? "JSON" : ""
  ]
    .filter(Boolean)
    .join("; ")

/** One input of a leaf. */
const Input = ({ at, error, node, onText, text }) => {
  const { kind, values } = node
  const shared = {
    name: dotted(at),
    value: text,
    "aria-invalid": error === undefined ? undefined : "true",
    "aria-describedby": error === undefined ? undefined : `error-${at}`,
    [kind === "choice" || kind === "flag" ? "onChange" : "onInput"]: (event) => onText(event.target.value)
  }
  if (kind === "choice" || kind === "flag")
    return html`<select ...${shared}>
      <option value=""></option>
      ${
        kind === "flag"
          ? ["true", "false"].map((one) => html`<option key=${one} value=${one}>${one}</option>`)
          : values.map((one, i) => html`<option key=${i} value=${String(i)}>${String(one)}</option>`)
      }
    </select>`
  if (kind === "json") return html`<textarea rows="3" spellcheck="false" ...${shared}></textarea>`
  return html`<input
    inputmode=${kind === "number" ? "decimal" : undefined}
    autocomplete="off"
    spellcheck="false"
    ...${shared}
  />`
}

/** Whether a field that may be absent is set, left out or null. */
const Presence = ({ at, node, onTexts, texts }) =>
  html`<select
    class="small"
    aria-label=${`${dotted(at)}: a value, or none`}
    value=${presenceOf(node, texts, at)}
    onChange=${(event) => onTexts({ ...texts, [`${at}?`]: event.target.value })}
  >
    <option value="set">a value</option>
    ${node.isOptional && html`<option value="out">left out</option>`}
    ${node.isNullable && html`<option value="null">null</option>`}
  </select>`

/** The items of a list or a record, with buttons that add and remove one. */
const Items = ({ at, node, onTexts, texts, ...rest }) => {
  const count = countOf(node, texts, at)
  const resize = (length) => onTexts({ ...texts, [`${at}#`]: String(length) })
  return html`${Array.from(
      { length: count },
      (_, i) =>
        html`<div class="nested" key=${i}>
          ${
            node.kind === "map" &&
            html`<${Field} label="key"
              ><input
                name=${`${dotted(at)} key ${i + 1}`}
                value=${texts[`${at}@${i}`] ?? ""}
                onInput=${(event) => onTexts({ ...texts, [`${at}@${i}`]: event.target.value })}
            /><//>`
          }
          <${Node}
            ...${rest}
            at=${below(at, i)}
            node=${node.itemAt(i)}
            label=${node.kind === "map" ? "value" : `item ${i + 1}`}
            texts=${texts}
            onTexts=${onTexts}
          />
        </div>`
    )}
    <div class="row">
      <button
        type="button"
        class="small"
        disabled=${count >= (node.most ?? Infinity)}
        onClick=${() => resize(count + 1)}
      >
        Add one
      </button>
      <button type="button" class="small" disabled=${count <= (node.least ?? 0)} onClick=${() => resize(count - 1)}>
        Remove the last
      </button>
    </div>`
}

const parts = new Set(["object", "list", "map", "union"])
const Inner = ({ at, node, onTexts, texts, ...rest }) => {
  if (node.kind === "object")
    return html`<${Inputs} ...${rest} at=${at} fields=${node.fields} texts=${texts} onTexts=${onTexts} />`
  if (node.kind !== "union")
    return html`<${Items} ...${rest} at=${at} node=${node} texts=${texts} onTexts=${onTexts} />`
  const chosen = optionOf(texts, at)
  return html`<${Field} label="which"
      ><select value=${String(chosen)} onChange=${(event) => onTexts({ ...texts, [`${at}|`]: event.target.value })}>
        ${node.options.map(({ label }, i) => html`<option key=${i} value=${String(i)}>${label}</option>`)}
      </select><//
    >
    <${Node}
      ...${rest}
      at=${`${at}|${chosen}`}
      node=${{ ...node.optionAt(chosen), isNullable: false }}
      label=""
      texts=${texts}
      onTexts=${onTexts}
    />`
}

/** The error of a place; of JSON that of what is in it, too. */
const errorAt = (errors, at, { kind }) => {
  const own = dotted(at)
  return errors.find(({ path }) => path === own || (kind === "json" && path.startsWith(`${own}.`)))?.message
}
const Node = ({ at, errors, label, node, onTexts, texts }) => {
  const presence = presenceOf(node, texts, at)
  const error = errorAt(errors, at, node)
  const canBeAbsent = node.isOptional || node.isNullable
  const choice = canBeAbsent && html`<${Presence} at=${at} node=${node} texts=${texts} onTexts=${onTexts} />`
  const wrong = error && html`<small class="wrong" id=${`error-${at}`}>${error}</small>`
  if (node.kind === "constant")
    return (
      label &&
      html`<${Field} label=${label}
        ><span><code>${JSON.stringify(node.value)}</code> ${choice}</span><//
      >`
    )
  const isPart = parts.has(node.kind)
  if (isPart && label === "")
    return html`<${Inner} at=${at} node=${node} errors=${errors} texts=${texts} onTexts=${onTexts} />`
  if (isPart)
    return html`<fieldset>
      <legend>${label} ${choice}</legend>
      ${node.description && html`<small class="quiet">${node.description}</small>`}
      ${presence === "set" && html`<${Inner} at=${at} node=${node} errors=${errors} texts=${texts} onTexts=${onTexts} />`}
      ${wrong}
    </fieldset>`
  const isTime = ["number", "text"].includes(node.kind) && isTimeName(dotted(at).split(".").at(-1))
  const hint = hintOf(node)
  // what is typed is meant, also where nothing was before
  const onText = (text) => onTexts({ ...texts, [at]: text, ...(canBeAbsent && { [`${at}?`]: undefined }) })
  return html`<div class="field">
    <label class="field"
      ><span>${label}</span
      ><${Input}
        at=${at}
        node=${node}
        error=${error}
        text=${presence === "set" ? (texts[at] ?? "") : ""}
        onText=${onText}
    /></label>
    ${
      (choice || isTime || hint !== "") &&
      html`<div class="row">
        ${choice}
        ${isTime && html`<button type="button" class="small" onClick=${() => onText(nowFor(node))}>Now</button>`}
        <small class="quiet">${hint}</small>
      </div>`
    }
    ${wrong}
  </div>`
}
/** Inputs for the fields of an object. */
const Inputs = ({ at, fields, ...rest }) =>
  fields.map(
    (field) =>
      html`<${Node} key=${field.name} ...${rest} at=${below(at, field.name)} node=${field} label=${field.name} />`
  )

/** The state of a form for a schema: what is typed, as a form or as JSON, and what is wrong with it. `roots`: what references are relative to. */
export const useForm = (schema, roots, initial = {}) => {
  const node = nodeOf(schema, roots)
  const isJsonOnly = node.kind !== "object"
  const [state, setState] = useState({ texts: initial, json: isJsonOnly ? "{}" : undefined, refused: [] })
  const { json, refused, texts } = state
  let value
  let errors = []
  if (json === undefined) {
    const read = valueOf(node, texts)
    value = read.value
    errors = read.errors.map(({ at, message }) => ({ path: dotted(at), message }))
  } else
    try {
      value = parseJson(json)
    } catch (error) {
      errors = [{ path: "", message: `This is no JSON: ${error.message}` }]
    }
  const fill = (next) =>
    setState({
      texts: textsOf(node, next),
      json: json === undefined ? undefined : JSON.stringify(next, null, 2),
      refused: []
    })
  return {
    node,
    isJsonOnly,
    isJson: json !== undefined,
    json,
    texts,
    errors,
    refused,
    /** The JSON text; undefined while something is wrong. */
    body: errors.length > 0 ? undefined : JSON.stringify(value),
    setTexts: (next) => setState({ ...state, texts: next, refused: [] }),
    setJson: (next) => setState({ ...state, json: next, refused: [] }),
    toJson: () => setState({ ...state, json: JSON.stringify(value ?? {}, null, 2) }),
    toForm: () => setState({ ...state, json: undefined, texts: value === undefined ? texts : textsOf(node, value) }),
    fill,
    fillSample: () => fill({ ...sampleOf(node) }),
    clear: () => setState({ texts: initial, json: json === undefined ? undefined : "{}", refused: [] }),
    /** Shows what is wrong at the fields: an error of the server, or what the form finds itself. */
    refuse: (list) => setState({ ...state, refused: list })
  }
}
/** The inputs of a form, or its JSON, and what changes between them. */
export const Form = ({ form }) =>
  html`${
      form.isJson
        ? html`<${Field} label="JSON">
            <textarea
              name="json"
              rows="10"
              spellcheck="false"
              value=${form.json}
              onInput=${(event) => form.setJson(event.target.value)}
            ></textarea>
          <//>`
        : html`<div class="columns">
            <${Inputs}
              at=""
              fields=${form.node.fields}
              errors=${form.refused}
              texts=${form.texts}
              onTexts=${form.setTexts}
            />
          </div>`
    }
    <div class="row">
      <button type="button" class="small" onClick=${form.fillSample}>Fill in a sample</button>
      ${!form.isJsonOnly && html`<button type="button" class="small" aria-pressed=${form.isJson} onClick=${form.isJson ? form.toForm : form.toJson}>${form.isJson ? "As a form" : "As JSON"}</button>`}
      <button type="button" class="small" onClick=${form.clear}>Clear</button>
    </div>`
