// A command to an aggregate, as a form of its schema: what it is sent with, and what it was answered.
import { curlOf, send } from "../lib/api.js"
import { shellWord } from "../lib/format.js"
import { html, useEffect, useState } from "../lib/html.js"
import { useLack } from "../lib/may.js"
import { Command, Field, Json, Problem, Table, Tag, Value } from "./common.js"
import { Form, useForm } from "./form.js"

const newKey = () => crypto.randomUUID()

/** What a command was answered. */
const Answer = ({ answer: { body, status }, onVersion }) => {
  const repeated = body.repeated && html` <${Tag} kind="warn">repeated: answered before<//>`
  if (status === 409) {
    const { _tag: tag, ...fields } = body.rejection ?? { _tag: body.title }
    return html`<div class="problem" role="alert">
      <p><strong>Rejected: ${tag}</strong>${repeated}</p>
      <p>${body.detail}</p>
      ${
        Object.keys(fields).length > 0 &&
        html`<${Table}
          caption="What the rejection says"
          rows=${Object.entries(fields)}
          keyOf=${([name]) => name}
          columns=${[
            { name: "field", cell: ([name]) => name },
            { name: "value", cell: ([, value]) => html`<${Value} value=${value} />` }
          ]}
        />`
      }
      <p class="quiet">${body.error?.try}</p>
    </div>`
  }
  if (status === 412)
    return html`<div class="problem" role="alert">
      <p><strong>${body.detail}</strong></p>
      <p>Others were first. Look at what the stream has now, and send the command for it if it still makes sense.</p>
      <button type="button" onClick=${onVersion}>Take the newest version</button>
    </div>`
  return html`<div role="status" class="note-box ok">
    <p>
      ${
        body.events.length === 0
          ? `Nothing was to be done; the version is ${body.version}.`
          : `${body.events.map(({ type }) => type).join(", ")}: the version is ${body.version}.`
      }${repeated}
    </p>
    ${
      body.events.length > 0 &&
      html`<details>
        <summary>Its events</summary>
        <${Json} value=${body.events} />
      </details>`
    }
  </div>`
}

/** With what a command is sent: its key, who sends it, and which version it is for. */
const SentWith = ({ given, setGiven, version }) => {
  const { actor, expected, key } = given
  const set = (name) => (event) => setGiven({ ...given, [name]: event.target.value })
  return html`<fieldset class="options">
    <legend>How it is sent</legend>
    <${Field} label="Idempotency-Key" hint="the same key gets the same answer, and is done once"
      ><input name="idempotency-key" value=${key} onInput=${set("key")}
    /><//>
    <${Field} label="Actor" hint="goes on the events"><input name="actor" value=${actor} onInput=${set("actor")} /><//>
    <label class="check"
      ><input
        type="checkbox"
        checked=${expected !== undefined}
        disabled=${version === undefined}
        onChange=${(event) => setGiven({ ...given, expected: event.target.checked ? version : undefined })}
      />
      <span
        >Only if the version is still ${expected ?? version ?? "…"}${" "}<small class="quiet"
          >If-Match; else it is decided on the newest</small
        ></span
      ></label
    >
  </fieldset>`
}
/** The headers of a request that is sent with `given`. */
const headersOf = ({ actor, expected, key }) => ({
  ...(key !== "" && { "idempotency-key": key }),
  ...(expected !== undefined && { "if-match": `"${expected}"` }),
  ...(actor !== "" && { "millrace-actor": actor })
})
/** The command and the request that do the same. `note` says of which one, once one was sent. */
const Same = ({ aggregate, body, command, given, id, note, path }) => {
  const { actor, expected, key } = given
  const options = [
    expected === undefined ? "" : ` --expected ${expected}`,
    key === "" ? "" : ` --command-id ${shellWord(key)}`,
    actor === "" ? "" : ` --actor ${shellWord(actor)}`
  ].join("")
  return html`${note && html`<p class="quiet">${note}</p>`}
    <${Command}
      text=${`npx millrace aggregate send ${shellWord(aggregate.name)} ${shellWord(id)} ${shellWord(command.name)} ${shellWord(body)}${options}`}
    />
    <details>
      <summary>The same as a request</summary>
      <${Command} label="request" text=${curlOf("POST", path, { body, headers: headersOf(given) })} />
    </details>`
}

/**
 * What is sent of a form, and with what, and what it was answered. What was sent keeps its key, so that it can be repeated; the next command gets one of its
 * own, once it is another one.
 */
const useSending = ({ form, onDone, path }) => {
  const [given, setGiven] = useState({ key: newKey(), actor: "", expected: undefined })
  const [state, setState] = useState({})
  const { answer, sent } = state
  const isSent = sent !== undefined && sent.body === form.body && sent.given === given
  const startNext = () => {
    const { expected, key } = given
    const version = answer !== undefined && answer.status !== 412 ? answer.body.version : undefined
    setGiven({
      ...given,
      key: key !== "" && key === sent.given.key ? newKey() : key,
      expected: expected !== undefined && expected === sent.given.expected ? (version ?? expected) : expected
    })
    setState((old) => ({ ...old, sent: undefined }))
  }
  useEffect(() => {
    if (sent !== undefined && !isSent) startNext()
  }, [sent, isSent])
  const request = async () => {
    const one = { body: form.body, given }
    setState({ isSending: true })
    try {
      const found = await send("POST", path, { body: one.body, accept: [409, 412], headers: headersOf(given) })
      setState({ answer: found, sent: one })
      onDone()
    } catch (error) {
      const { message, path: field } = error.body?.error ?? {}
      form.refuse(field === undefined ? [] : [{ path: field, message }])
      // what was refused was not done; of what got no answer it is not known
      setState({ error, sent: error.status === 0 || error.status >= 500 ? one : undefined })
    }
  }
  /** After a conflict, which decides nothing: the same command, with its key, for the newest version. */
  const takeNewest = () => {
    setGiven({ ...given, expected: Number(answer.headers.get("etag")?.replaceAll('"', "")) })
    setState({})
    onDone()
  }
  return { ...state, given, isSent, request, setGiven, setState, startNext, takeNewest }
}
/** Of which command the texts below a form are, once one was sent. */
const noteOf = ({ answer, given, isSent }) =>
  !isSent
    ? answer && "The next one, which was not sent yet:"
    : given.key === ""
      ? "What was sent, without a key: each repetition is another command."
      : "What was sent, with its key: however often it is repeated, it is done once."

const CommandForm = ({ aggregate, closed, command, document, id, onDone, version }) => {
  const form = useForm(command.schema, [command.schema, document])
  const path = `/v1/aggregates/${aggregate.path}/${encodeURIComponent(id)}/commands/${command.path}`
  const sending = useSending({ form, onDone, path })
  const { answer, error, given, isSending, isSent, request, setGiven, setState, startNext, takeNewest } = sending
  const submit = (event) => {
    event.preventDefault()
    if (form.body !== undefined) return request()
    form.refuse(form.errors)
    setState({
      error: {
        message: `${form.errors.map(({ message, path: field }) => `${field} ${message}`).join("; ")}`,
        advice: "correct it: nothing was sent"
      }
    })
  }
  return html`<form class="grid" onSubmit=${submit} novalidate>
    <${Form} form=${form} />
    <${SentWith} given=${given} setGiven=${setGiven} version=${version} />
    <div class="row">
      <button class="primary" disabled=${isSending || closed !== undefined}>
        ${isSent && given.key !== "" ? "Send it again with the same key" : "Send"}
      </button>
      ${isSent && answer !== undefined && answer.status !== 412 && html`<button type="button" onClick=${() => (startNext(), setState({}))}>Start another one</button>`}
    </div>
    <${Problem} error=${error} />
    ${answer && html`<${Answer} answer=${answer} onVersion=${takeNewest} />`}
    ${form.body !== undefined && html`<${Same} aggregate=${aggregate} body=${form.body} command=${command} given=${given} id=${id} note=${noteOf(sending)} path=${path} />`}
  </form>`
}

/** A form for each command of an aggregate; `name` is the one that is chosen. `version`: what the stream has, as it was shown. */
export const SendCommand = ({ aggregate, name, onName, ...rest }) => {
  const lack = useLack()("ingest")
  const command = aggregate.commands.find((one) => one.name === name) ?? aggregate.commands[0]
  if (command === undefined)
    return html`<section class="card">
      <h2>Send a command</h2>
      <p class="quiet">This process takes no commands: open the console of one with the role gateway.</p>
    </section>`
  if (lack)
    return html`<section class="card">
      <h2>Send a command</h2>
      <${Problem} error=${lack} />
    </section>`
  return html`<section class="card">
    <h2>Send a command</h2>
    <${Field} label="Command"
      ><select name="command" value=${command.name} onChange=${(event) => onName(event.target.value)}>
        ${aggregate.commands.map((one) => html`<option key=${one.name}>${one.name}</option>`)}
      </select><//
    >
    <${CommandForm} key=${command.name} aggregate=${aggregate} command=${command} ...${rest} />
  </section>`
}
