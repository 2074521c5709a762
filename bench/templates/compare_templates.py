"""What llmpress makes of templates beside Jinja with the settings of transformers' chat templates.

    python compare_templates.py BUILD/bench/render_template [--golden OUT.json] [FILE.jinja...]

Small templates in the manner of the known families, with the constructs that they use, and some hundred expressions, over
several conversations. Templates in files are rendered over the same ones. --golden writes cases and Jinja's answers for the
tests. Needs jinja2.
"""
import argparse, datetime, json, subprocess, sys, tempfile

import jinja2, jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 26, 12, 30)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a \"place\" <now>.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Name \u00e9\u4f60 & more"},
        "unit": {"type": "string", "enum": ["c", "f"]}, "days": {"type": "integer", "default": 3}}}}}]

USER = {"role": "user", "content": "  What is 2 + 2?\n"}
CONVERSATIONS = [
    {"messages": [USER]},
    {"messages": [{"role": "system", "content": "Be brief. "}, USER]},
    {"messages": [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFour."}, {"role": "user", "content": "And \u4f60\u597d \U0001f600?"}]},
    {"messages": [{"role": "system", "content": ""}, USER, {"role": "assistant", "content": " It's 4. "}, USER], "add_generation_prompt": False},
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_0001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Z\u00fcrich", "days": 2}}}]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call_0001", "content": "{\"t\": 21.5}"}, {"role": "assistant", "content": "21.5"}, USER],
     "tools": TOOLS},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image"}, {"type": "text", "text": " here"}]}]},
    {"messages": [USER], "enable_thinking": False, "tools": TOOLS},
    {"messages": []},
]
BASE = {"tools": None, "documents": None, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

# In the manner of the families, each written for this file.
TEMPLATES = {
    "chatml": """{% for m in messages %}
<|im_start|>{{ m.role }}
{{ m['content'] }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% endif %}""",
    "qwen with thinking": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages and messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages and messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and m.role == 'user' and m.content is string and not m.content.startswith('<tool') %}
        {%- set ns.searching = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- set content = m.content if m.content is string else '' %}
    {%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}{{- '<think>\\n' ~ thought.strip('\\n') ~ '\\n</think>\\n\\n' }}{%- endif %}
        {{- content }}
        {%- for call in m.tool_calls or [] %}
            {%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
""",
    "llama 2": """{% if messages and messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate, found ' + m.role) }}{% endif %}{% if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "llama 3.1": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|header|>system<|end|>\\n\\nToday: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system }}{{- "<|eot|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception("no first user message") }}{%- endif %}
    {{- '<|header|>user<|end|>\\n\\n' -}}
    {{- "Functions:\\n\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first + "<|eot|>"}}
{%- endif %}
{%- for m in messages %}
    {%- if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}
        {{- '<|header|>' + m['role'] + '<|end|>\\n\\n'+ m['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in m %}
        {%- if not m.tool_calls|length == 1 %}{{- raise_exception("one tool at once") }}{%- endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- '<|header|>assistant<|end|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}{{- "<|eot|>" }}
    {%- elif m.role == "tool" or m.role == "ipython" %}
        {{- "<|header|>ipython<|end|>\\n\\n" }}
        {%- if m.content is mapping or m.content is iterable %}{{- m.content | tojson }}{%- else %}{{- m.content }}{%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|end|>\\n\\n' }}
{%- endif %}
""",
    "mistral v1": """{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ ' [INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + (m['content'] or '') + ' ' + eos_token}}{% elif m.role != 'system' %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}""",
    "mistral v3": """{%- if messages and messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}{%- set rest = messages[1:] %}
{%- else %}
    {%- set rest = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set users = rest | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for m in rest %}
    {%- if not (m.role == "tool" or m.role == "tool_results" or (m.tool_calls is defined and m.tool_calls is not none)) %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in rest %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == users[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{- "[INST] " + system + "\\n\\n" + m["content"] + "[/INST]" }}{%- else %}{{- "[INST] " ~ m["content"] ~ "[/INST]" }}{%- endif %}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for call in m.tool_calls %}
            {%- set out = call.function|tojson %}{{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}{{- raise_exception("ids of 9 characters!") }}{%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif m["role"] == "assistant" %}{{- " " + m["content"]|trim + eos_token}}
    {%- elif m["role"] in ["tool_results", "tool"] %}
        {%- if m.content is defined and m.content.content is defined %}{%- set content = m.content.content %}{%- else %}{%- set content = m.content %}{%- endif %}
        {{- '[RESULTS] {"content": ' + content|string + ", " }}{{- '"call_id": "' + m.tool_call_id + '"}[/RESULTS]' }}
    {%- else %}{{- raise_exception("Only user and assistant") }}{%- endif %}
{%- endfor %}
""",
    "gemma": """{{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set prefix = messages[0]['content'] + '\n\n' -%}{%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}{%- set rest = messages -%}
{%- endif -%}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("Conversation roles must alternate") }}{%- endif -%}
    {%- if (m['role'] == 'assistant') -%}{%- set role = "model" -%}{%- else -%}{%- set role = m['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (prefix if loop.first else "") }}
    {%- if m['content'] is string -%}
        {{ m['content'] | trim }}
    {%- elif m['content'] is iterable -%}
        {%- for item in m['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    "phi": """{% for m in messages %}{% if m['role'] == 'system' %}{{'<|system|>\n' + m['content'] + '<|end|>\n'}}{% elif m['role'] == 'user' %}{{'<|user|>\n' ~ m['content'] ~ '<|end|>\n'}}{% elif m['role'] == 'assistant' %}{{'<|assistant|>\n' ~ m['content'] ~ '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system='', is_first_sp=true) %}{%- for m in messages %}{%- if m['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system = ns.system + m['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system = ns.system + '\\n\\n' + m['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for m in messages %}{%- if m['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<\uff5cUser\uff5c>' ~ m['content']}}{%- endif %}{%- if m['role'] == 'assistant' and m['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in m['tool_calls'] %}{%- if not ns.is_first %}{{'<\uff5cAssistant\uff5c><calls>' + tool['type'] + '<sep>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['type']}}{%- endif %}{%- endfor %}{%- endif %}{%- if m['role'] == 'assistant' and m['content'] is not none %}{%- if ns.is_tool %}{{'<outputs_end>' + m['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<\uff5cAssistant\uff5c>' + content + eos_token}}{%- endif %}{%- endif %}{%- if m['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<outputs>' + m['content'] + '<end>'}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' + m['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<outputs_end>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<\uff5cAssistant\uff5c>'}}{% endif %}""",
    "zephyr": """{% for m in messages %}
{% if m['role'] == 'user' %}
{{ '<|user|>\n' ~ m['content'] ~ eos_token }}
{% elif m['role'] == 'system' %}
{{ '<|system|>\n' ~ m['content'] ~ eos_token }}
{% elif m['role'] == 'assistant' %}
{{ '<|assistant|>\n'  ~ m['content'] ~ eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "command": """{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% elif false == true %}{% set rest = messages %}{% set system = 'x' %}{% else %}{% set rest = messages %}{% set system = false %}{% endif %}{% if system != false %}{{ '<|START|><|SYSTEM|>' + system + '<|END|>' }}{% endif %}
{%- macro document(doc, number) -%}
Document: {{ number }}
{%- for key, value in doc | dictsort %}

{{ key | title }}: {{ value }}
{%- endfor %}
{%- endmacro %}
{%- set docs = documents or [{"text": "b", "title": "a"}, {"title": "c"}] %}
{%- for d in docs %}{{ document(d, loop.index0) }}{{ "" if loop.last else "\\n\\n" }}{%- endfor %}
{%- for m in rest %}{% set content = m['content'] %}{% if m['role'] == 'user' %}{{ '<|START|><|USER|>' ~ (content.strip() if content is string else content) ~ '<|END|>' }}{% elif m['role'] == 'assistant' %}{{ '<|START|><|BOT|>' + ((content or '') | trim) + '<|END|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|START|><|BOT|>' }}{% endif %}""",
    "macros": """{#- Types of parameters, one inside another -#}
{%- macro render_type(spec, required=true, depth=0) -%}
    {%- if spec.enum is defined -%}
        {%- for v in spec.enum -%}"{{ v }}"{{ " | " if not loop.last }}{%- endfor -%}
    {%- elif spec.type == "object" -%}
        {{- "{\\n" }}
        {%- for name, p in spec.properties.items() -%}
            {{- "  " * (depth + 1) }}{{ name }}{{ "?" if name not in (spec.required or []) }}: {{ render_type(p, depth=depth + 1) }}
            {%- if p.default is defined %}{{ ", // default: " ~ p.default }}{% endif %}{{ ",\\n" }}
        {%- endfor -%}
        {{- "  " * depth ~ "}" }}
    {%- elif spec.type is string -%}{{ {"integer": "number"}.get(spec.type, spec.type) }}
    {%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- macro wrap(name) %}<{{ name }}>{{ caller() if caller else "" }}</{{ name }}>{% endmacro %}
{%- macro list_of(items) %}{% for i in items %}{{ caller(i, loop.index) }};{% endfor %}{% endmacro %}
{%- set model_identity = model_identity | default("You are \\u00c4 model.") %}
{{- "<|start|>system<|message|>" }}{{ model_identity + "\\n" }}{{ "Current date: " + strftime_now("%Y-%m-%d") + "\\n\\n" }}
{%- for t in tools or [] %}
namespace functions {
// {{ t.function.description | replace("\\n", "\\n// ") }}
type {{ t.function.name }} = (_: {{ render_type(t.function.parameters) }}) => any;
}
{%- endfor %}
{{- "<|end|>" }}
{%- for m in messages -%}
    {%- if m.role == "assistant" and m.tool_calls -%}
        {%- set last_tool = namespace(name=m.tool_calls[0].function.name) -%}
        {{- "<|start|>assistant to=functions." ~ last_tool.name ~ "<|message|>" ~ m.tool_calls[0].function.arguments|tojson ~ "<|call|>" }}
    {%- elif loop.last and not add_generation_prompt -%}
        {{- "<|start|>" ~ m.role ~ "<|message|>" ~ m.content ~ "<|return|>" }}
    {%- else -%}
        {%- call wrap(m.role) -%}{{ (m.content | string)[:20] | upper }}{%- endcall -%}
    {%- endif -%}
{%- endfor -%}
{%- call(item, n) list_of(["a", "b"]) -%}{{ n }}={{ item }}{%- endcall -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
""",
    "white space": """  {# a comment #}
  a
   {% if true %}
   b
 {%- else %}c{% endif %}
  {%+ if true +%}
  d {{ 1 }}
  {{- 2 -}}
  e
 {% raw %}  {{ x }} {% if %}
 {% endraw %}
 {%- raw -%}  y  {%- endraw +%}
\t{% set x %}
 in {{ 3 }}
{% endset %}[{{ x }}]{# c -#}

  f
{%- filter upper | replace('Z', 'y') %} g
 z {% endfilter %}
{% with a = 1, b = x | trim %}{{ a }}{{ b }}{% endwith %}
{% generation %}
 h
{% endgeneration %}
 i  {#- j +#}
{{ '{{' }}{{ "}}" }}{{ {'a': {'b': 1}}['a']['b'] }}

""",
    "loops": """{% for i in range(10) if i is odd %}{% if i == 3 %}{% continue %}{% endif %}{% if i > 7 %}{% break %}{% endif %}{{ loop.index }}/{{ loop.length }}:{{ i }}{{ loop.cycle('x', 'y') }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}-{{ loop.nextitem }} {% else %}none{% endfor %}
{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }},{% endfor %}{% for k in {'x': 1, 'y': none} %}{{ k }}{% endfor %}{% for c in "h\u00e9" %}{{ c }}.{% endfor %}{% for x in [] %}{% else %}empty{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% for j in [1] %}{{ loop.depth }}{% set x = 9 %}{% endfor %}{{ x }}{% endfor %}{{ x }}
{% macro m(a, b='d', c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m(b=3) }}{{ m(m(1, 2), 'q') }}
{% set a, b = 1, 'two' %}{{ a }}{{ b }}{% set ns = namespace(x=1) %}{% for i in range(3) %}{% set ns.x = ns.x * 2 %}{% endfor %}{{ ns.x }}{% if false %}{% elif x %}y{% endif %}
{% for m in messages recursively_not_a_thing %}{% endfor %}""".rsplit("\n", 1)[0],
}

EXPRESSIONS = """1 + 2 * 3 - 4 // 3 % 2 | 7 / 2 | -7 // 2 | -7 % 3 | 7.5 // 2 | 2 ** 3 ** 2 | -2 ** 2 | 1.0 | 1e20 | 1e-5 | 0.1 + 0.2 | 123456789012345.6 | 1e16 | 10 / 4
'a' ~ 1 ~ none ~ true ~ 1.5 | 'ab' * 3 | 3 * 'ab' | 'a' 'b' | "it's" | 'tab\\tnl\\nq\\'x\\u00e9\\x41\\q' | [1, 'a', none, true, 1.5, [2], {'k': 'v'}] | (1,) | (1, 2) | () | {} | [] | {'a': "it's"}
'a' if true | 'a' if false else 'b' | ('x' if false) is defined | 1 if 0 else 2 if 0 else 3 | not 1 == 2 | not true and false | 1 < 2 < 3 | 1 < 3 < 2 | 'b' in 'abc' | 'z' not in 'abc' | 1 in [1, 2] | 'k' in {'k': 1} | 2 == 2.0 | true == 1 | '1' == 1 | none == none | [1] == [1] | {'a': 1} == {'a': 1.0} | 'a' < 'b' | [1, 2] < [1, 3]
missing | missing is defined | missing is undefined | (missing or 'd') | missing | default('x') | '' | default('x') | '' | default('x', true) | none | d('y', boolean=true) | 'a' | d('x') | missing == missing2 | missing in [1] | 'x' in missing | missing | length | missing | list
'abc'[0] | 'abc'[-1] | 'abc'[5] | 'h\u00e9llo'[1] | 'abcdef'[1:4] | 'abcdef'[::-1] | 'abcdef'[-2:] | 'abcdef'[:-1] | 'abcdef'[::2] | [1, 2, 3][1:] | [1, 2, 3][::-1] | [1, 2, 3][-1] | [1, 2][9] | 'abcdef'[4:1:-1] | (1, 2, 3)[:2] | {'a': 1}['a'] | {'a': 1}['b'] | {'a': 1}.a | {'items': 1}.items is callable | {'items': 1}['items'] | {'a': {'b': [5]}}.a.b.0 | 'abc'[1:none]
' a b '.strip() | 'xxaxx'.strip('x') | 'xyaxy'.lstrip('yx') | 'axy'.rstrip('y') | 'a b  c'.split() | 'a,b,,c'.split(',') | 'a b c d'.split(none, 2) | 'a-b-c'.split('-', 1) | 'a-b-c'.rsplit('-', 1) | ' a b  c '.rsplit(none, 1) | 'a\\nb\\r\\nc\\n'.splitlines() | ' x  y '.split(none, 0) | ''.split() | ''.split(',')
'abc'.startswith('a') | 'abc'.startswith(('x', 'ab')) | 'abc'.endswith('bc') | 'Hello World'.upper() | 'HELLO \u00c9\u0130'.lower() | 'stra\u00dfe'.upper() | 'hello wORLD it\\'s'.title() | 'hello WORLD'.capitalize() | 'aXbX'.replace('X', '--') | 'aXbX'.replace('X', '-', 1) | 'ab'.replace('', '.') | ', '.join(['a', 'b']) | 'abcabc'.find('c') | 'abc'.find('z') | 'abcabc'.rfind('b') | 'banana'.count('an') | 'abc'.index('c') | '12'.isdigit() | ''.isdigit() | 'a1'.isalnum() | 'ab'.isalpha() | ' '.isspace() | 'AB'.isupper() | 'a1'.islower() | 'prefix-x'.removeprefix('prefix-') | 'x.py'.removesuffix('.py')
' a ' | trim | 'xax' | trim('x') | 'abc' | upper | 'ABC' | lower | 'hello wORLD-foo (bar' | title | 'hELLO' | capitalize | 'abc' | length | [1, 2] | count | [1, 2, 3] | first | [1, 2, 3] | last | [] | first | 'abc' | first | [3, 1, 2] | sort | ['b', 'A', 'c'] | sort | ['b', 'A'] | sort(case_sensitive=true) | [3, 1] | sort(reverse=true) | 'abc' | reverse | [1, 2] | reverse | list | [1, 2] | join('-') | [1, 'a'] | join | 'abc' | list | {'b': 1, 'a': 2} | dictsort | {'b': 1, 'a': 2} | items | list | {'a': 1} | list | [1, 1, 2] | unique | list | ['a', 'A'] | unique | list | [1, 5, 2] | max | [4, 2] | min | [1, 2.5] | sum | -3 | abs | -3.5 | abs
'5' | int | 'x' | int | 'x' | int(7) | 3.9 | int | '3.7' | float | 'q' | float | 2.5 | round | 2.675 | round(2) | 2.1 | round(0, 'ceil') | 3 | string | '<a & "b">' | e | '<b>' | safe | ('<b>' | safe) + '<i>' | '<i>' + ('&' | e) + '"' | ('<b>' | safe) ~ '<i>' | 'a' ~ ('<' | e) | 'a\\nb\\n\\nc' | indent | 'a\\nb' | indent(2, true) | 'a\\n\\nb' | indent(1, blank=true) | 'aXa' | replace('a', 'b') | 'aaa' | replace('a', 'b', 2) | 'one two  three' | wordcount
[{'n': 1}, {'n': 2}] | map(attribute='n') | list | ['a', 'b'] | map('upper') | list | [{'n': 1}, {}] | map(attribute='n', default=0) | list | [1, 2, 3] | select('odd') | list | [1, 2, 3] | reject('odd') | list | [0, 1, '', 'a'] | select | list | [{'r': 'u'}, {'r': 'a'}] | selectattr('r', 'equalto', 'u') | list | [{'r': 'u'}, {'r': 'a'}] | rejectattr('r', 'eq', 'u') | list | [{'r': 1}, {}] | selectattr('r') | list | [{'r': 1}, {}] | selectattr('r', 'defined') | list | [1, 2, 3] | select('in', [1, 3]) | list | [1, 5] | select('>', 2) | list | [[1, 2], [3]] | map('length') | list | [{'a': {'b': 1}}] | map(attribute='a.b') | list | [[5]] | map(attribute=0) | list | ['a b'] | map('replace', ' ', '_') | first | [{'n': 2}, {'n': 1}] | sort(attribute='n') | [{'n': 2}] | sum(attribute='n') | [{'n': 'x'}, {'n': 'y'}] | join(',', attribute='n')
{'a': [1, {'b': none}], 'c': "\u00e9\\n<'\\"", 'd': true, 'e': 1.5} | tojson | {'a': [1, {'b': []}], 'c': {}} | tojson(indent=2) | {'b': 1, 'a': 2} | tojson(sort_keys=true) | '\u00e9\U0001f600' | tojson(ensure_ascii=true) | [1, 2] | tojson(separators=(',', ':')) | none | tojson | 'a/b\\\\' | tojson | 1e300 | tojson | [] | tojson(indent=4)
1 is number | '1' is number | true is number | 'a' is string | 1 is integer | 1.0 is float | true is boolean | true is integer | none is none | 1 is none | {} is mapping | [] is mapping | [] is iterable | 1 is iterable | 'a' is iterable | 'a' is sequence | [] is sequence | {} is sequence | 1 is odd | 2 is even | 6 is divisibleby 3 | 6 is divisibleby(4) | 1 is eq 1 | 1 is equalto(2) | 1 is ne 2 | 1 is lt 2 | 2 is ge 3 | 'a' is in ['a'] | 'a' is in 'abc' | true is true | 1 is true | false is false | 0 is false | 'a' is lower | 'A' is upper | 1 is not none | 1 is sameas 1 | range is callable | 'x' is not string or true | not 'x' is string | missing is not defined and true
range(3) | list | range(1, 7, 2) | list | range(3, 0, -1) | list | dict(a=1, b='x') | dict({'z': 1}, a=2) | namespace(a=1).a | strftime_now('%d %b %Y, %A %H:%M') | [1, 2, 3] | length > 2 | ('a', 'b') | join | [1] + [2] | 'a' + 'b' | 1 + 1.5 | {'a': 1}.get('a') | {'a': 1}.get('b') | {'a': 1}.get('b', 'd') | {1: 'x', 2.5: 'y', none: 'z', true: 'w'} | {1: 'x'}[1.0] | {1: 'x', none: 2} | tojson | 2 in {2: 0} | '{} {} {{x}} {n}'.format('a', 'b', n=3) | none | selectattr('x') | list | none | map('upper') | list | {'a': 1, 'b': 2}.keys() | list | {'a': 1}.values() | list | {'a': 1}.items() | list | [1, 2, 1].count(1) | [5, 6].index(6) | bos_token + eos_token | messages | length | (1 if true else 2) + 3 | true and 'x' or 'y' | 1, 2 | +3 | - 3 | 'a' ~ 'b' | upper | -1 | abs | 5 - -3 | 'x'.upper().lower() ~ 'y' | 10 is gt 5 and 1 is lt 2"""
# Pipes separate expressions only where blanks follow a complete one: see expressions().

FAILURES = ["{{ 1 + 'a' }}", "{{ missing.x }}", "{{ missing + 1 }}", "{{ 'a' + 1 }}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{ none.x.y }}",
            "{{ [1].append(2) }}", "{% for x in 1 %}{% endfor %}", "{{ 1 < 'a' }}", "{{ missing() }}", "{{ 'a'() }}", "{{ 5 | length }}", "{% set a, b = [1] %}",
            "{{ x", "{% if %}", "{% if true %}", "{% endif %}", "{{ 'a }}", "{# x", "{{ 1 | nix }}", "{{ 1 is nix }}", "{{ (1 }}", "{{ 1 ) }}", "{% nix %}", "{{ a b }}",
            "{{ missing[0] }}", "{{ [] | max + 1 }}", "{{ range(1000000) | length }}", "{% set x.y = 1 %}", "{{ {'a': 1}.b.c }}", "{{ 'abc'.index('z') }}", "{{ }}",
            "{% for a in [1] %}{{ a }}{% else %}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}"]


def expressions():
    """Lines of expressions with " | " between them, where a filter's " | " is told by its name."""
    known = set(environment().filters) - {"list"}
    for line in EXPRESSIONS.splitlines():
        now = ""
        for part in line.split(" | "):
            name = part.split("(")[0].split(" ")[0]
            if now and (name in known or name == "list"):
                now += " | " + part
                continue
            if now: yield now
            now = part
        yield now


def cases(extra):
    context = lambda c: {**BASE, **c}
    for name, text in list(TEMPLATES.items()) + extra:
        for i, conversation in enumerate(CONVERSATIONS):
            yield f"{name}, {i}", text, context(conversation)
    for e in expressions():
        yield e, "[{{ " + e + " }}]", context(CONVERSATIONS[2])
    for text in FAILURES:
        yield text, text, context(CONVERSATIONS[0])


def answer(env, text, context):
    try:
        return {"text": env.from_string(text).render(**context)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary"); parser.add_argument("--golden"); parser.add_argument("files", nargs="*")
    o = parser.parse_args()
    env = environment()
    extra = [(f.rsplit("/", 1)[-1], open(f, encoding="utf-8").read()) for f in o.files]
    asked = list(cases(extra))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump([{"template": text, "context": context} for _, text, context in asked], f)
        f.flush()
        got = json.loads(subprocess.run([o.binary, f.name], capture_output=True, text=True, check=True).stdout)
    same, golden, files = 0, [], {name: [0, 0, 0] for name, _ in extra}
    for (name, text, context), ours in zip(asked, got):
        theirs = answer(env, text, context)
        alike = ours.get("text") == theirs.get("text")
        same += alike
        if name.rsplit(", ", 1)[0] in files:
            count = files[name.rsplit(", ", 1)[0]]
            count[0] += alike; count[1] += 1; count[2] += "text" in theirs
        golden.append({"name": name, "template": text, "context": context, **({"text": theirs["text"]} if "text" in theirs else {"fails": True})})
        if not alike:
            print(f"{name}\n  ours   {json.dumps(ours, ensure_ascii=False)[:600]}\n  theirs {json.dumps(theirs, ensure_ascii=False)[:600]}")
    for name, (alike, count, rendered) in files.items():
        print(f"{name:50} {alike}/{count} alike, {rendered} rendered by Jinja")
    print(f"{len(asked)} cases, {same} alike")
    if o.golden:
        contexts = [{**BASE, **c} for c in CONVERSATIONS]
        for g in golden: g["context"] = contexts.index(g["context"])
        with open(o.golden, "w") as f:
            json.dump({"contexts": contexts, "cases": golden}, f, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    main()
