# A Redmine for tests: filled, then served by Puma. Its key goes to $BATON_KEY; it ends when its standard input does.
Thread.new { $stdin.read; exit!(0) }

require "/usr/share/redmine/config/environment"

Setting.rest_api_enabled = "1"
admin = User.find_by_login!("admin")
admin.must_change_passwd = false
admin.save!(validate: false)

IssueCustomField.find_or_create_by!(name: "Baton") do |field|
  field.field_format = "string"
  field.is_for_all = true
  field.is_filter = true
  field.searchable = true
  field.trackers = Tracker.all
end

{"li.lei" => %w[雷 李], "lin.tao" => %w[涛 林]}.each do |login, (given, family)|
  next if User.find_by_login(login)

  User.new(firstname: given, lastname: family, mail: "#{login}@example.com", language: "zh") do |user|
    user.login = login
    user.password = user.password_confirmation = "fake-password"
    user.save!
  end
end

File.write(ENV.fetch("BATON_KEY"), admin.api_key)
run Rails.application
