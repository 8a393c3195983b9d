-- Customers of the sales application, found again in the business application by e-mail address.
WITH home AS (
    SELECT entity_address.businessentityid, address.*
    FROM entity_address
    JOIN address ON address.addressid = entity_address.addressid
    WHERE entity_address.addresstypeid = 2
)
SELECT
    customer._row,
    CAST(email.businessentityid AS VARCHAR) AS wr_personnumber,
    customer."CustomerKey" AS wr_customernumber,
    initcap(customer."Prefix") AS salutation,
    initcap(customer."FirstName") AS firstname,
    initcap(customer."LastName") AS lastname,
    lower(email.emailaddress) AS emailaddress1,
    CASE phone.phonenumbertypeid WHEN 2 THEN phone.phonenumber END AS telephone2,
    CASE phone.phonenumbertypeid WHEN 1 THEN phone.phonenumber END AS mobilephone,
    customer."Occupation" AS jobtitle,
    -- Month first, and not always with two digits.
    to_date(customer."BirthDate", '%m/%d/%Y') AS birthdate,
    CASE customer."Gender" WHEN 'M' THEN 'Male' WHEN 'F' THEN 'Female' END AS gendercode,
    CASE customer."MaritalStatus" WHEN 'M' THEN 'Married' WHEN 'S' THEN 'Single' END AS familystatuscode,
    CAST(customer."TotalChildren" AS INTEGER) AS numberofchildren,
    -- '$90,000 '
    CAST(regexp_replace(customer."AnnualIncome", '[^0-9.]', '', 'g') AS DECIMAL(19, 4)) AS annualincome,
    'USD' AS transactioncurrencyid,
    home.addressline1 AS address1_line1,
    home.addressline2 AS address1_line2,
    home.city AS address1_city,
    home.postalcode AS address1_postalcode,
    state_province.name AS address1_stateorprovince,
    country.name AS address1_country
FROM customer
JOIN email ON lower(email.emailaddress) = lower(trim(customer."EmailAddress"))
LEFT JOIN phone ON phone.businessentityid = email.businessentityid
LEFT JOIN home ON home.businessentityid = email.businessentityid
LEFT JOIN state_province ON state_province.stateprovinceid = home.stateprovinceid
LEFT JOIN country ON country.countryregioncode = state_province.countryregioncode
