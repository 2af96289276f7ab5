// What all pages are made of: states of loading, problems, what is empty, commands to copy, tables, and dialogs that ask before something is done.
import { dataNumber, dataText, isMoment, isUtc, number, shellWord, shortened, time, visible } from "../lib/format.js"
import { html, useEffect, useRef, useState } from "../lib/html.js"
import { isNested } from "../lib/json.js"
import { useOnline } from "../lib/online.js"
import { isTime } from "../lib/types.js"

/** A time with the other zone in its title. */
export const Time = ({ at }) => {
  const [, refresh] = useState(0)
  useEffect(() => {
    const update = () => refresh((n) => n + 1)
    globalThis.addEventListener("zone", update)
    return () => globalThis.removeEventListener("zone", update)
  }, [])
  if (at === undefined || at === null) return html`<span>–</span>`
  const date = new Date(at)
  const iso = Number.isNaN(date.getTime()) ? String(at) : date.toISOString()
  return html`<time datetime=${iso} title=${isUtc() ? date.toString() : iso}>${time(at)}</time>`
}

/** The command for a key that may what was refused, as far as the refusal says: one of `operate` or `ingest` alone sees too little to be of use here. */
const keyFor = ({ code, message, tenant }) => {
  if (code !== "forbidden") return undefined
  const scope = /needs the scope (\w+)/.exec(message)?.[1] ?? (message.includes("about all tenants") && "operate")
  if (!scope) return undefined
  const scopes = scope === "read" ? scope : `${scope === "ingest" ? "ingest,read" : "read,operate"}`
  return `npx millrace keys create NAME --scopes ${scopes}${tenant ? ` --tenant ${shellWord(tenant)}` : ""}`
}
/** An error with what to do about it. Once a server is back that did not answer, it says that, instead. */
export const Problem = ({ error }) => {
  const isOnline = useOnline()
  if (error?.status === 0 && isOnline)
    return html`<p class="note-box" role="status">
      The server did not answer, and is back. It is not known whether it took the request: look, and send it again.
    </p>`
  return error === undefined
    ? null
    : html`<div class="problem" role="alert">
        <p><strong>${error.message}</strong></p>
        ${error.advice && html`<p>What to do: ${error.advice}</p>`}
        ${
          keyFor(error) &&
          html`<p>A key that may:</p>
            <${Command} text=${keyFor(error)} />`
        }
        ${error.code && html`<p class="quiet">${error.code}${error.status ? `, HTTP ${error.status}` : ""}</p>`}
      </div>`
}

/** What a page shows while it has nothing: why, and the next step. */
export const Empty = ({ children, title }) =>
  html`<div class="empty">
    <p><strong>${title}</strong></p>
    ${children}
  </div>`

/** What a page shows for an address that names what is not there: `links` is what there is, `{ name, href }`. */
export const NoSuch = ({ links, name, noun }) =>
  html`<${Empty} title=${`There is no ${noun} ${shortened(name, 60)}`}>
    ${
      links.length === 0
        ? html`<p>There is none at all.</p>`
        : html`<p>There ${links.length === 1 ? "is" : "are"}:</p>
            <ul class="bare">
              ${links.map((one) => html`<li key=${one.name}><a href=${one.href}>${one.name}</a></li>`)}
            </ul>`
    }
  <//>`

/** What a page shows of tables or windows that are there, and that the credential of a tenant cannot read. */
export const Withheld = ({ count, noun }) =>
  html`<${Empty} title=${`Your credential reads no ${noun} of this application`}
    ><p>
      There ${count === 1 ? `is one, whose rows do` : `are ${number(count)}, whose rows do`} not say which tenant they
      belong to, and the credential belongs to one.
    </p>
    <p>
      What to do: use a credential without a tenant, or give the ${noun === "window" ? "key of the window" : "table"} a
      text column <code>tenant</code> (or name one by the option <code>tenant</code>).
    </p><//
  >`

/** What a request has answered so far: a note while it loads, its problem, or `children` of its data. */
export const Loaded = ({ children, of }) => {
  const { data, error: found, isLoading } = of
  // the frame says that the server is away or starting, or asks for a credential, and the page goes on by itself
  const isSaid = found?.status === 0 || found?.status === 401 || found?.code === "starting"
  const error = isSaid ? undefined : found
  if (data === undefined && error === undefined)
    return html`<p class="quiet" role="status">${isLoading || isSaid ? "Loading…" : ""}</p>`
  return html`${error && html`<${Problem} error=${error} />`}${data !== undefined && children(data)}`
}

/** A command or a request that can be copied. */
export const Command = ({ label = "command", text }) => {
  const [state, setState] = useState("")
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text)
      setState("copied")
    } catch {
      setState("select it to copy")
    }
    setTimeout(() => setState(""), 2_000)
  }
  return html`<div class="command">
    <code>${text}</code>
    <button type="button" class="small" onClick=${copy} aria-label=${`Copy the ${label}`}>${state || "Copy"}</button>
    <span class="sr" role="status">${state}</span>
  </div>`
}

/** A label with a colour for a state: `good`, `warn`, `bad` or `quiet`. The text says it, too. */
export const Tag = ({ children, kind = "quiet" }) => html`<span class=${`tag ${kind}`}>${children}</span>`

/** A number with its unit and what it is. */
export const Figure = ({ href, kind, label, note, unit = "", value }) => {
  const inner = html`<span class="label">${label}</span
    ><span class="value"
      >${typeof value === "number" ? number(value) : (value ?? "–")}<small>${unit && ` ${unit}`}</small></span
    ><span class="note">${note ?? ""}</span>`
  return href === undefined
    ? html`<div class=${`figure ${kind ?? ""}`}>${inner}</div>`
    : html`<a class=${`figure ${kind ?? ""}`} href=${href}>${inner}</a>`
}

/** A number or a text that is data, as much of it as `most` characters; with `isWhole` all digits of a number, also those of its rounding. */
export const Data = ({ isWhole, most = Infinity, value }) => {
  const whole = String(value)
  if (typeof value !== "string") {
    const text = isWhole ? whole : dataNumber(value)
    return text === whole ? whole : html`<span title=${whole}>${text}</span>`
  }
  const text = dataText(shortened(value, most))
  return text === value ? text : html`<span class="data" title=${visible(shortened(value, 1_000))}>${text}</span>`
}
/** A value of a row, a record or a state: text as text, objects as JSON, null as a dash. */
export const Value = ({ isWhole, value }) => {
  if (value === undefined || value === null) return html`<span class="quiet">null</span>`
  if (isNested(value)) return html`<code>${JSON.stringify(value)}</code>`
  if (typeof value === "boolean") return html`<code>${String(value)}</code>`
  return html`<${Data} value=${value} isWhole=${isWhole} />`
}
/** A value of a named field, of an SQL type if that is known: a time as such; one that is a time in epoch milliseconds has the time behind it. */
export const FieldValue = ({ isWhole, name, type, value }) =>
  isTime(type) && value !== null && value !== undefined
    ? html`<${Time} at=${value} />`
    : html`<${Value}
          value=${value}
          isWhole=${isWhole}
        />${isMoment(name, value) && html` <span class="quiet">(<${Time} at=${Number(value)} />)</span>`}`
/** JSON in one line of a table, as much as there is room for, and more of it in its title. */
export const JsonLine = ({ value }) => {
  const text = JSON.stringify(value)
  return html`<code class="line" title=${visible(text.slice(0, 1_000))}>${text.slice(0, 300)}</code>`
}
/** JSON over several lines. */
export const Json = ({ value }) =>
  html`<pre class="json" tabindex="0">${typeof value === "string" ? value : JSON.stringify(value, null, 2)}</pre>`

/**
 * A table. `columns`: `{ name, label, cell(row), numeric, wide }`; `rows` with `keyOf(row)`. It scrolls sideways in itself, by keyboard too. `caption` names it
 * for screen readers; `rowClass(row)` gives a row a class. With `stacks` each row of it is a block of lines on a phone: where what can be done is in it.
 */
export const Table = ({ caption, columns, keyOf, rowClass, rows, stacks }) =>
  html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table class=${stacks && "stacks"} role="table">
      <caption class="sr">
        ${caption}
      </caption>
      <thead role="rowgroup">
        <tr role="row">
          ${columns.map(({ label, name, numeric }) => html`<th key=${name} scope="col" role="columnheader" class=${numeric ? "n" : ""}>${label === "" ? html`<span class="sr">${name}</span>` : (label ?? name)}</th>`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map(
          (row, i) =>
            html`<tr role="row" key=${keyOf?.(row, i) ?? i} class=${rowClass?.(row)}>
              ${columns.map(
                ({ cell, label, name, numeric, wide }) =>
                  html`<td
                    key=${name}
                    role="cell"
                    data-label=${stacks && (label ?? name)}
                    class=${numeric ? "n" : wide ? "wide" : ""}
                  >
                    ${cell === undefined ? html`<${Value} value=${row[name]} />` : cell(row)}
                  </td>`
              )}
            </tr>`
        )}
      </tbody>
    </table>
  </div>`

/** A dialog. It takes the focus, Escape closes it, and the focus goes back. */
export const Dialog = ({ children, onClose, title }) => {
  const dialog = useRef()
  useEffect(() => {
    const opener = document.activeElement
    dialog.current.showModal()
    return () => opener?.focus?.()
  }, [])
  return html`<dialog
    ref=${dialog}
    aria-labelledby="dialog-title"
    onClose=${onClose}
    onClick=${(event) => event.target === dialog.current && onClose()}
  >
    <header>
      <h2 id="dialog-title">${title}</h2>
      <button type="button" class="small" onClick=${onClose}>Close</button>
    </header>
    ${children}
  </dialog>`
}

/**
 * A button that says what will happen, shows the command and the request that do the same, and asks, before it does it.
 *
 * `options`: what can be chosen, `{ name, label, kind: "flag" | "text" | "number" | "choice", values, value, hint }`; the functions get the choices by name.
 * `plan(chosen)` resolves to what a dry run found. `act(chosen, { report, signal, isOpen })` does it and resolves to the result; `report(text)` says how far
 * it is, `signal` is aborted by the button Stop, which an action has if `canStop`, and `isOpen()` is false once the dialog was closed. What a plan and a result are is text, or parts of a page.
 * `command` and `request` are texts, or made of what is chosen. `confirm` is a name that has to be typed. `reason` says why it cannot be done now.
 */
export const Action = (action) =>
  html`<button
    type="button"
    class=${[action.danger && action.reason === undefined && "danger", action.small && "small"].filter(Boolean).join(" ")}
    aria-haspopup="dialog"
    disabled=${action.disabled === true || action.reason !== undefined}
    title=${action.reason}
    aria-description=${action.reason}
    onClick=${() => globalThis.dispatchEvent(new CustomEvent("action", { detail: action }))}
  >
    ${action.label}
  </button>`
/** Shows the dialog of an action. It is in the frame of the page, so that its result stays when the button is gone, as that of what was done. */
export const ActionHost = () => {
  const [action, setAction] = useState()
  useEffect(() => {
    const pathOf = () => location.hash.split("?")[0]
    const show = ({ detail }) => setAction({ ...detail, path: pathOf() })
    // back goes to another page, and the dialog with it; an action that shows its job changes the address, too, and stays
    const leave = () => setAction((old) => (old?.path === pathOf() ? old : undefined))
    globalThis.addEventListener("action", show)
    globalThis.addEventListener("popstate", leave)
    return () => {
      globalThis.removeEventListener("action", show)
      globalThis.removeEventListener("popstate", leave)
    }
  }, [])
  return action && html`<${ActionDialog} ...${action} onClose=${() => setAction(undefined)} />`
}
/** What can be chosen for an action. */
const ActionOptions = ({ chosen, disabled, onChosen, options }) => {
  const set = (name, value) => onChosen({ ...chosen, [name]: value })
  return html`<fieldset class="options" disabled=${disabled}>
    <legend>Options</legend>
    ${options.map(({ hint, kind = "text", label, name, values }) =>
      kind === "flag"
        ? html`<label key=${name} class="check"
            ><input type="checkbox" checked=${chosen[name]} onChange=${(event) => set(name, event.target.checked)} />
            <span>${label}${hint && html` <small class="quiet">${hint}</small>`}</span></label
          >`
        : html`<${Field} key=${name} label=${label} hint=${hint}
            >${
              kind === "choice"
                ? html`<select name=${name} value=${chosen[name]} onChange=${(event) => set(name, event.target.value)}>
                    ${values.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}
                  </select>`
                : html`<input
                    name=${name}
                    value=${chosen[name]}
                    inputmode=${kind === "number" ? "decimal" : undefined}
                    onInput=${(event) => set(name, event.target.value)}
                  />`
            }<//
          >`
    )}
  </fieldset>`
}
const textFor = (given, chosen) => (typeof given === "function" ? given(chosen) : given)
const resultOf = (content) =>
  content &&
  html`<div role="status" class="result">${typeof content === "string" ? html`<p>${content}</p>` : content}</div>`
/** The state of an action's dialog: the plan of what is chosen, and the run. */
const useAction = ({ act, onDone, options = [], plan }) => {
  const [chosen, setChosen] = useState(() =>
    Object.fromEntries(options.map(({ kind, name, value }) => [name, value ?? (kind === "flag" ? false : "")]))
  )
  const [state, setState] = useState({ step: plan === undefined ? "ask" : "plan" })
  const stop = useRef()
  const isOpen = useRef(true)
  useEffect(() => () => (isOpen.current = false), [])
  useEffect(() => {
    if (plan === undefined || state.step === "running") return
    let isOld = false
    setState({ step: "plan" })
    const look = async () => {
      try {
        const content = await plan(chosen)
        if (!isOld) setState({ step: "ask", content })
      } catch (error) {
        if (!isOld) setState({ step: "refused", error })
      }
    }
    const timer = setTimeout(look, options.length > 0 ? 200 : 0)
    return () => {
      isOld = true
      clearTimeout(timer)
    }
  }, [chosen])
  const run = async () => {
    stop.current = new AbortController()
    setState({ step: "running", content: state.content })
    const report = (content) => isOpen.current && setState({ step: "running", content })
    try {
      const content = await act(chosen, { report, signal: stop.current.signal, isOpen: () => isOpen.current })
      setState({ step: "done", content: content ?? "Done." })
    } catch (error) {
      // what was done before it failed stays to be seen
      setState((old) => ({ step: "refused", content: error.done ?? old.content, error }))
    }
    onDone?.()
  }
  // what it would do may be another thing by now
  const again = () => (plan === undefined ? setState({ step: "ask" }) : setChosen({ ...chosen }))
  return { ...state, again, chosen, setChosen, run, stop: () => stop.current.abort() }
}
const ActionDialog = ({ onClose, ...action }) => {
  const { canStop, command, confirm, danger, describe, label, options = [], plan, request } = action
  const { again, chosen, content, error, run, setChosen, step, stop } = useAction(action)
  const [typed, setTyped] = useState("")
  return html`<${Dialog} title=${label} onClose=${onClose}>
    ${step !== "done" && html`<p>${textFor(describe, chosen)}</p>`}
    ${step !== "done" && options.length > 0 && html`<${ActionOptions} options=${options} chosen=${chosen} disabled=${step === "running"} onChosen=${setChosen} />`}
    ${step === "plan" && html`<p role="status" class="quiet">Asking what it would do…</p>`} ${resultOf(content)}
    <${Problem} error=${error} />
    ${
      confirm !== undefined &&
      ["ask", "plan"].includes(step) &&
      html`<${Field} label=${`Type ${confirm} to go on`}
        ><input name="confirm" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)}
      /><//>`
    }
    ${
      command !== undefined &&
      html`<p class="quiet">The same by the command line:</p>
        <${Command} text=${textFor(command, chosen)} />`
    }
    ${
      request !== undefined &&
      html`<details>
        <summary>The same as a request</summary>
        <${Command} label="request" text=${textFor(request, chosen)} />
      </details>`
    }
    <footer>
      ${step === "running" && canStop && html`<button type="button" onClick=${stop}>Stop</button>`}
      <button type="button" onClick=${onClose}>${step === "done" || step === "refused" ? "Close" : "Cancel"}</button>
      ${step === "refused" && html`<button type="button" onClick=${again}>Try again</button>`}
      ${
        (step === "ask" || step === "running" || (step === "plan" && plan !== undefined)) &&
        html`<button
          type="button"
          class=${danger ? "danger" : "primary"}
          disabled=${step !== "ask" || (confirm !== undefined && typed !== confirm)}
          onClick=${run}
        >
          ${step === "running" ? "Working…" : label}
        </button>`
      }
    </footer>
  <//>`
}

/** A field of a form with its label; `hint` says what it takes. */
export const Field = ({ children, hint, label }) =>
  html`<label class="field"><span>${label}</span>${children}${hint && html`<small>${hint}</small>`}</label>`
