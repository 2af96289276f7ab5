// Sends events: a form from a schema, or JSON, or many as lines. The gateway validates each, and says what became of it.
import { curlOf, send, useGet } from "../lib/api.js"
import { counted, number } from "../lib/format.js"
import { html, useState } from "../lib/html.js"
import { parseJson } from "../lib/json.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Loaded, NoSuch, Problem, Table, Tag } from "../parts/common.js"
import { freshIdOf } from "../lib/forms.js"
import { Form, useForm } from "../parts/form.js"

/** What can be sent: the alternatives of the body's schema, by their titles. */
const shapesOf = (document) => {
  const schema = document.paths["/v1/events"]?.post.requestBody.content["application/json"].schema
  const [one] = schema?.anyOf ?? []
  return (one?.anyOf ?? []).filter(({ title }) => title !== undefined)
}
/** The topic that has to be named for a shape; undefined if its type says it. */
const topicOf = ({ description, title }) =>
  /\?topic=(\S+)/.exec(description ?? "")?.[1] ?? /^deletes a key of (\S+)$/.exec(title)?.[1]
const pathOf = (topic) =>
  topic === undefined || topic === "" ? "/v1/events" : `/v1/events?topic=${encodeURIComponent(topic)}`

/** The last events that were sent from this tab, the newest first. */
const storage = "millrace.sent"
const sentOf = () => {
  try {
    return JSON.parse(sessionStorage.getItem(storage)) ?? []
  } catch {
    return []
  }
}
const keepSent = (one) => {
  const kept = [one, ...sentOf().filter(({ body }) => body !== one.body)].slice(0, 10)
  try {
    sessionStorage.setItem(storage, JSON.stringify(kept))
  } catch {
    // the tab has no room for it
  }
}

const recordLink = ({ partition, position, topic }) => linkTo("events", { topic, at: `${partition}:${position}` })
const commandsOf = (path, body, type) =>
  html`<p class="quiet">The same request:</p>
    <${Command}
      label="request"
      text=${curlOf("POST", path, { body, ...(type && { headers: { "content-type": type } }) })}
    />`

/** Where an event is that was sent, and a button that gives the form another id. */
const Sent = ({ form, result }) => {
  const { event_id: id, partition, position, topic } = result
  const [given, setGiven] = useState()
  // the field that has the event's id, if it is a text of the event itself
  const value = id === undefined || form.body === undefined ? undefined : parseJson(form.body)
  const field = value && form.node.fields?.find(({ name }) => value[name] === (given ?? id))
  const fresh = field && freshIdOf(field, value[field.name])
  const renew = () => {
    form.fill(Object.assign({}, value, { [field.name]: fresh }))
    setGiven(fresh)
  }
  return html`<p role="status" class="note-box ok">
      ${`The log has it: ${topic}, partition ${partition}, position ${position}${id === undefined ? "" : `, id ${id}`}. `}<a
        href=${recordLink(result)}
        >See it</a
      >${id !== undefined && " An event with this id again would be in the log twice; a projection with dedupe ignores the second."}
    </p>
    ${
      fresh &&
      html`<div class="row">
        <button type="button" onClick=${renew}>New id</button>
        <span class="quiet" role="status">${given && `The next one has the id ${given}.`}</span>
      </div>`
    }`
}

const OneEvent = ({ document, initial, onSent, shape }) => {
  const form = useForm(shape, [shape, document])
  const [state, setState] = useState({})
  const [isLoaded, setLoaded] = useState(initial === undefined)
  const path = pathOf(topicOf(shape))
  if (!isLoaded) {
    setLoaded(true)
    form.fill(parseJson(initial))
  }
  const submit = async (event) => {
    event.preventDefault()
    if (form.body === undefined) {
      form.refuse(form.errors)
      return setState({
        error: {
          message: form.errors.map(({ message, path: field }) => `${field} ${message}`).join("; "),
          advice: "correct it: nothing was sent"
        }
      })
    }
    setState({ isSending: true })
    try {
      const answer = await send("POST", path, { body: form.body, accept: [400, 422] })
      const [result] = answer.body.results ?? []
      if (result?.status === "accepted") {
        keepSent({ type: shape.title, body: form.body })
        onSent()
        return setState({ result })
      }
      const error = result?.error ?? answer.body.error
      const { code, message, path: field, try: advice } = error
      form.refuse(field === undefined ? [] : [{ path: field, message }])
      setState({
        error: {
          code,
          advice,
          message: field === undefined || message.startsWith(field) ? message : `${field}: ${message}`
        }
      })
    } catch (error) {
      setState({ error })
    }
  }
  return html`<form class="card" onSubmit=${submit} novalidate>
    <${Form} form=${form} />
    <div class="row"><button class="primary" disabled=${state.isSending}>Send</button></div>
    <${Problem} error=${state.error} />
    ${state.result && html`<${Sent} key=${state.result.position} form=${form} result=${state.result} />`}
    ${form.body !== undefined && commandsOf(path, form.body)}
  </form>`
}

/** The lines that have something, with their numbers in the text. */
const nonEmpty = (text) => text.split("\n").flatMap((line, i) => (line.trim() === "" ? [] : [{ line, at: i + 1 }]))
/** Events as lines of JSON. */
const ManyEvents = ({ topics }) => {
  const [text, setText] = useState("")
  const [topic, setTopic] = useState("")
  const [state, setState] = useState({})
  const lines = nonEmpty(text)
  const faults = lines.flatMap(({ at, line }) => {
    try {
      const value = parseJson(line)
      return typeof value === "object" && value !== null && !Array.isArray(value)
        ? []
        : [`line ${at} is no JSON object`]
    } catch (error) {
      return [`line ${at} is no JSON: ${error.message}`]
    }
  })
  const path = pathOf(topic)
  const body = lines.map(({ line }) => `${line}\n`).join("")
  const submit = async (event) => {
    event.preventDefault()
    setState({ isSending: true })
    try {
      const answer = await send("POST", path, {
        body,
        accept: [400, 422],
        headers: { "content-type": "application/x-ndjson" }
      })
      if (answer.body.results === undefined) {
        const { code, message, try: advice } = answer.body.error
        return setState({ error: { code, message, advice } })
      }
      setState({ answer: answer.body, at: lines.map(({ at }) => at) })
    } catch (error) {
      setState({ error })
    }
  }
  const load = async (event) => setText(await event.target.files[0].text())
  return html`<form class="card" onSubmit=${submit}>
    <div class="row end">
      <${Field} label="Topic" hint="needed for topics without event types"
        ><select value=${topic} onChange=${(event) => setTopic(event.target.value)}>
          <option value="">the one that has each type</option>
          ${topics.map((name) => html`<option key=${name}>${name}</option>`)}
        </select><//
      >
      <${Field} label="From a file"><input type="file" accept=".ndjson,.jsonl,.json,.txt" onChange=${load} /><//>
    </div>
    <${Field} label="Events, one JSON object a line">
      <textarea
        name="lines"
        rows="12"
        spellcheck="false"
        value=${text}
        onInput=${(event) => setText(event.target.value)}
      ></textarea>
    <//>
    ${faults.length > 0 && html`<p class="wrong">${faults.slice(0, 3).join("; ")}${faults.length > 3 ? `; and ${number(faults.length - 3)} more` : ""}</p>`}
    <div class="row">
      <button class="primary" disabled=${lines.length === 0 || state.isSending}>
        Send ${counted(lines.length, "event")}
      </button>
      ${faults.length > 0 && html`<span class="quiet">The other lines are sent all the same; each gets its own answer.</span>`}
    </div>
    <${Problem} error=${state.error} /> ${state.answer && html`<${Results} answer=${state.answer} at=${state.at} />`}
    ${lines.length > 0 && lines.length <= 5 ? commandsOf(path, body, "application/x-ndjson") : html`<${Command} label="request" text=${`${curlOf("POST", path, { headers: { "content-type": "application/x-ndjson" } })} --data-binary @FILE`} />`}
  </form>`
}
const Results = ({ answer: { accepted, rejected, results }, at }) => {
  const refused = results.filter(({ status }) => status === "rejected")
  const last = results.findLast(({ status }) => status === "accepted")
  return html`<p role="status" class=${`note-box ${rejected === 0 ? "ok" : ""}`}>
      ${`${counted(accepted, "event")} accepted, ${number(rejected)} rejected. `}${last && html`<a href=${recordLink(last)}>The last one</a>`}
    </p>
    ${
      refused.length > 0 &&
      html`<${Table}
        caption="Rejected events"
        rows=${refused.slice(0, 100)}
        keyOf=${({ error }) => error.index}
        columns=${[
          { name: "line", numeric: true, cell: ({ error }) => at[error.index] ?? error.line },
          { name: "code", cell: ({ error }) => html`<code>${error.code}</code>` },
          { name: "path", label: "field", cell: ({ error }) => error.path ?? "" },
          {
            name: "message",
            cell: ({ error }) => html`${error.message}<br /><small class="quiet">${error.try}</small>`
          }
        ]}
      />`
    }`
}

const Last = ({ onUse }) => {
  const sent = sentOf()
  if (sent.length === 0) return null
  return html`<details class="card">
    <summary>Sent from this tab</summary>
    <${Table}
      caption="Events that were sent from this tab, the newest first"
      rows=${sent}
      columns=${[
        { name: "type", cell: ({ type }) => html`<${Tag}>${type}<//>` },
        { name: "body", label: "event", cell: ({ body }) => html`<code>${body}</code>` },
        {
          name: "use",
          label: "",
          cell: (one) => html`<button type="button" class="small" onClick=${() => onUse(one)}>Use it again</button>`
        }
      ]}
    />
  </details>`
}

export default ({ query }) => {
  const document = useGet("/openapi.json")
  const [used, setUsed] = useState()
  const [, refresh] = useState(0)
  const isMany = query.many === "1"
  return html`<header class="head">
      <h1>Send</h1>
      <a href=${linkTo("send", isMany ? {} : { many: "1" })}>${isMany ? "One event" : "Many at once"}</a>
    </header>
    <p class="lead">
      ${isMany ? "Events as lines of JSON. Each is validated by itself, and gets a result of its own." : "One event, with the fields that its schema asks for. It goes the way of every other event."}
    </p>
    <${Loaded} of=${document}>
      ${(found) => {
        const shapes = shapesOf(found)
        if (shapes.length === 0)
          return html`<${Empty} title="This process takes no events"
            ><p>The application has no topic that others write, or this process has not the role gateway.</p>
            <a href=${linkTo("aggregates")}>Send a command to an aggregate</a><//
          >`
        if (isMany) return html`<${ManyEvents} topics=${[...new Set(shapes.map(topicOf).filter(Boolean))]} />`
        const type = query.type ?? query.event
        const shape = type === undefined ? shapes[0] : shapes.find(({ title }) => title === type)
        if (shape === undefined)
          return html`<${NoSuch}
            noun="event"
            name=${type}
            links=${shapes.map(({ title }) => ({ name: title, href: linkTo("send", { type: title }) }))}
          />`
        const use = (one) => {
          setUsed({ ...one, at: Date.now() })
          go(linkTo("send", { type: one.type }))
        }
        const initial = used?.type === shape.title ? used.body : undefined
        return html`<${Field} label="Event"
            ><select value=${shape.title} onChange=${(event) => go(linkTo("send", { type: event.target.value }))}>
              ${shapes.map(({ title }) => html`<option key=${title}>${title}</option>`)}
            </select><//
          >
          <${OneEvent}
            key=${`${shape.title} ${initial === undefined ? "" : used.at}`}
            document=${found}
            shape=${shape}
            initial=${initial}
            onSent=${() => refresh((n) => n + 1)}
          />
          <${Last} onUse=${use} />`
      }}
    <//>`
}
