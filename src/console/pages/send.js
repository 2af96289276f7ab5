// Sends one event: a form from its schema, or JSON. The gateway validates it, and says what became of it.
import { send, useGet } from "../lib/api.js"
import { shellWord } from "../lib/format.js"
import { fieldsOf, valueOf } from "../lib/forms.js"
import { html, useState } from "../lib/html.js"
import { go, linkTo } from "../lib/router.js"
import { Command, Empty, Field, Loaded, Problem } from "../parts/common.js"
import { Inputs } from "../parts/form.js"

/** What can be sent: the alternatives of the body's schema, by their titles. */
const shapesOf = (document) => {
  const schema = document.paths["/v1/events"]?.post.requestBody.content["application/json"].schema
  const [one] = schema?.anyOf ?? []
  return (one?.anyOf ?? []).filter(({ title }) => title !== undefined)
}
/** The topic that has to be named for a shape; undefined if its type says it. */
const topicOf = ({ description }) => /\?topic=(\S+)/.exec(description ?? "")?.[1]

const resultText = ({ event_id: id, partition, position, topic }) =>
  `The log has it: ${topic}, partition ${partition}, position ${position}${id === undefined ? "" : `, id ${id}`}.`

const Form = ({ document, shape }) => {
  const fields = fieldsOf(shape, document)
  const [texts, setTexts] = useState({})
  const [state, setState] = useState({})
  const topic = topicOf(shape)
  const path = topic === undefined ? "/v1/events" : `/v1/events?topic=${encodeURIComponent(topic)}`
  let body
  try {
    body = JSON.stringify(valueOf(fields, texts))
  } catch (error) {
    body = undefined
    texts.problem = error.message
  }
  const submit = async (event) => {
    event.preventDefault()
    if (body === undefined) return setState({ error: { message: texts.problem } })
    try {
      const answer = await send("POST", path, { body, accept: [400, 422] })
      const [result] = answer.body.results ?? []
      if (result?.status === "accepted") return setState({ text: resultText(result), result })
      const { code, message, path: field, try: advice } = result?.error ?? answer.body.error
      setState({ error: { code, advice, message: field === undefined ? message : `${field}: ${message}` } })
    } catch (error) {
      setState({ error })
    }
  }
  return html`<form class="card" onSubmit=${submit}>
    <div class="columns"><${Inputs} fields=${fields} texts=${texts} onTexts=${setTexts} /></div>
    <div class="row"><button class="primary">Send</button></div>
    <${Problem} error=${state.error} />
    ${
      state.text &&
      html`<p role="status">
        ${state.text}
        <a
          href=${linkTo("events", { topic: state.result.topic, partition: String(state.result.partition), from: String(state.result.position) })}
          >See it</a
        >
      </p>`
    }
    ${
      body !== undefined &&
      html`<p class="quiet">The same request:</p>
        <${Command}
          label="request"
          text=${`curl -X POST ${shellWord(location.origin + path)} -H 'content-type: application/json' -d ${shellWord(body)}`}
        />`
    }
  </form>`
}

export default ({ query }) => {
  const document = useGet("/openapi.json")
  return html`<header class="head"><h1>Send</h1></header>
    <p class="lead">One event, with the fields that its schema asks for. It goes the way of every other event.</p>
    <${Loaded} of=${document}>
      ${(found) => {
        const shapes = shapesOf(found)
        if (shapes.length === 0)
          return html`<${Empty} title="This process takes no events"
            ><p>Open the console of a process with the role gateway.</p><//
          >`
        const shape = shapes.find(({ title }) => title === query.type) ?? shapes[0]
        return html`<${Field} label="Event"
            ><select value=${shape.title} onChange=${(event) => go(linkTo("send", { type: event.target.value }))}>
              ${shapes.map(({ title }) => html`<option key=${title}>${title}</option>`)}
            </select><//
          >
          <${Form} key=${shape.title} document=${found} shape=${shape} />`
      }}
    <//>`
}
