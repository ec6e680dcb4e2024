"""From a command on the log to its effect and its result event."""

from __future__ import annotations

from connectors.builtin.connector import connect
from hub.kit.connector import Instance
from hub.ledger import links
from schemas.envelope import promise
from tests.executor_bench import Bench, command


def test_a_command_is_carried_out_and_told(bench: Bench) -> None:
    pm = bench.system("pm")
    asked = command(title="启动会", assignee="person/li.lei")
    with bench.running():
        bench.ask(asked)
        bench.until_states("DONE", [asked])
    assert [sent.arguments for sent in pm.sent] == [{"title": "启动会", "assignee": "li.lei@pm"}]
    [request, created] = bench.events()
    assert (request.type, request.subject) == ("work.task.requested", f"request/pm/{asked.id}")
    assert (created.type, created.subject) == ("work.task.created", f"task/pm/T-{asked.id}")
    assert created.data["assignee"] == "person/li.lei"
    assert created.data["why"]["matched"] == {"amount": "880000"}
    assert (created.case, created.causationid) == (asked.case, asked.id)
    with bench.ledger.reading() as conn:
        assert links.case_of(conn, f"task/pm/T-{asked.id}") == asked.case


def test_a_promise_is_the_id_that_the_earlier_command_gave(bench: Bench) -> None:
    pm = bench.system("pm")
    project = command(0, type_="project.create", name="交付")
    task = command(1, title="启动会", project=promise(project.id), tags=[{"of": promise(project.id)}])
    with bench.running():
        bench.ask(project, task)
        bench.until_states("DONE", [project, task])
    assert [sent.type for sent in pm.sent] == ["project.create", "task.create"]
    assert pm.sent[1].arguments["project"] == f"T-{project.id}"
    assert pm.sent[1].arguments["tags"] == [{"of": f"T-{project.id}"}]
    assert bench.events("work.task.requested")[0].data["project"] == project.id


def test_a_command_that_comes_twice_is_carried_out_once(bench: Bench) -> None:
    pm = bench.system("pm")
    asked = command()
    with bench.running():
        bench.ask(asked, asked)
        bench.until_states("DONE", [asked])
        bench.ask(asked, command(1))
        bench.until_states("DONE", [command(1)])
    assert dict(pm.effects) == {asked.id: 1, command(1).id: 1}
    assert len(bench.events("work.task.created")) == 2


def test_what_an_update_makes_of_a_builtin_task_is_told(bench: Bench) -> None:
    bench.real["desk"] = connect(Instance(name="desk", use="builtin", settings={}))
    task = command(0, instance="desk", title="开票", assignee="person/han.meimei")
    update = command(1, type_="task.update", instance="desk", task=promise(task.id), done=True)
    with bench.running():
        bench.ask(task, update)
        bench.until_states("DONE", [task, update])
    [completed] = bench.events("work.task.completed")
    assert (completed.subject, completed.case) == (f"task/desk/{task.id}", task.case)
    assert bench.events("work.task.created")[0].data["assignee"] == "person/han.meimei"
